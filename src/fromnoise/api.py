"""The Python face: `fromnoise.run(...)` and `fromnoise.load(...)`."""

from __future__ import annotations

import operator
import os
import threading
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fromnoise.parallel.process import Process
from fromnoise.run.console import Console
from fromnoise.run.errors import UserError
from fromnoise.run.execute import execute, make_report
from fromnoise.run.folder import RunFolder
from fromnoise.run.machine import prepare_environment
from fromnoise.run.recipe_load import load_recipe, one_by_one
from fromnoise.run.verdict import MODELS, models_of_run

if TYPE_CHECKING:
    from torch import Tensor

    from fromnoise.model.config import ModelConfig

Message = Mapping[str, str]  # {"role": "user" | "assistant" | "system", "content": ...}


def run_recipe(
    recipe: str | Path = "world", *, run_dir: str | Path | None = None, rerun: bool = False, allow_different_numerics: bool = False,
    quiet: bool = False, **overrides: Any,
) -> Run:  # fmt: skip
    """Everything a recipe says, resuming whatever is missing.

    recipe: a shipped name, a TOML file, or a run folder. run_dir: `runs/NAME` by default.
    overrides: recipe keys, nested as dicts or dotted: `budget="10m"`, `sft={"epochs": 1}`, `**{"sft.epochs": 1}`.
    Raises UserError with what to do about it, Interrupted with how to go on, or Waiting where people have to compare answers first
    (all three of `fromnoise.run.errors`).
    """
    if "\0" in str(run_dir):
        raise UserError(f"run_dir = {str(run_dir)!r}: no folder's name can hold a zero byte; give another name")
    arguments = [f"{key}={value}" if isinstance(value, str) else (key, value) for key, value in _flatten(overrides)]
    resolved = load_recipe(recipe, arguments)
    folder = RunFolder(run_dir or default_folder(recipe, resolved.name))
    console = Console(quiet=quiet)
    execute(resolved, folder, rerun=rerun, allow_different_numerics=allow_different_numerics, console=console)
    if Process.from_environment().is_main:  # of the group that `execute` has joined
        make_report(folder, console)
    return Run(folder.path)


def default_folder(recipe: str | Path | None, name: str) -> Path:
    """Where a run goes when nobody says: a run folder given as recipe is the run; else runs/NAME."""
    path = Path(os.path.expanduser(recipe)) if recipe is not None else None
    return path if path is not None and path.is_dir() else Path("runs") / name


class Run:
    """A finished run. `run.base`, `run.sft`, `run.rlhf` and `run.reason` are its models, read at first use."""

    def __init__(self, path: str | Path):
        self.path = Path(path).absolute()  # by then the process may be in another folder

    @cached_property
    def base(self) -> Model:
        return load_model_folder(self.path / "base")

    @cached_property
    def sft(self) -> Model:
        return load_model_folder(self.path / "sft")

    @cached_property
    def rlhf(self) -> Model:
        return load_model_folder(self.path / "rlhf")

    @cached_property
    def reason(self) -> Model:
        return load_model_folder(self.path / "reason")

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"


def load_model_folder(path: str | Path) -> Model:
    """A Model from a model folder, or from a run folder its latest finished one. Raises UserError where there is none."""
    folder = Path(os.path.expanduser(path))
    if not (folder / "config.json").is_file():
        inside = models_of_run(folder)
        if not inside:
            raise UserError(f"{folder}: no model here (a model folder has config.json; a run folder has {', '.join(MODELS)} inside)")
        _, folder = inside[-1]
    return Model(folder)


class Model:
    """A language model and its tokenizer, for prompting from Python. Weights are float32. Threads that ask at once are answered in turn."""

    def __init__(self, folder: Path):
        prepare_environment()
        from fromnoise.data.tokenizer import Tokenizer
        from fromnoise.model.hf import check_vocabulary, load_model, wants_calculator

        self.folder = folder
        self.calculator = wants_calculator(folder)  # `chat` answers the calls that the model makes while it writes
        self.tokenizer = Tokenizer.load(folder)
        self.module = load_model(folder)
        check_vocabulary(self.module.config, len(self.tokenizer), folder)
        self._one_at_a_time = threading.Lock()  # the engine has one cache, and native code lets other threads run while it writes there

    @cached_property
    def engine(self):
        from fromnoise.generate.engine import Engine

        return Engine(self.module, max_batch=1)

    def chat(
        self, messages: str | Sequence[Message], *, max_new_tokens: int = 128, temperature: float = 0.7, top_k: int = 0, top_p: float = 1.0,
        repetition_penalty: float = 1.0, seed: int = 0,
    ) -> str:  # fmt: skip
        """The assistant's answer to a message, or to a conversation that ends with the user's.

        Raises ValueError for what is no conversation, UserError when it does not fit the context with room for the answer.
        """
        conversation = [{"role": "user", "content": messages}] if isinstance(messages, str) else _conversation(messages)
        prompt, _ = self.tokenizer.encode_messages(conversation, add_generation_prompt=True)
        return self.tokenizer.decode_answer(
            self._generate(
                prompt, set(self.tokenizer.chat_stop_ids), seed, self.calculator,
                max_new_tokens=max_new_tokens, temperature=temperature, top_k=top_k, top_p=top_p, repetition_penalty=repetition_penalty,
            )
        )  # fmt: skip

    def complete(
        self, text: str, *, max_new_tokens: int = 64, temperature: float = 0.7, top_k: int = 0, top_p: float = 1.0,
        repetition_penalty: float = 1.0, seed: int = 0,
    ) -> str:  # fmt: skip
        """What the model goes on with after `text`, which it reads as the beginning of a document. Errors as in `chat`."""
        prompt = self.tokenizer.encode_beginning(_text(text))
        return self.tokenizer.decode(
            self._generate(
                prompt, {self.tokenizer.endoftext_id}, seed,
                max_new_tokens=max_new_tokens, temperature=temperature, top_k=top_k, top_p=top_p, repetition_penalty=repetition_penalty,
            )
        )  # fmt: skip

    def _generate(self, prompt: list[int], stops: set[int], seed: int, calculator: bool = False, **settings: Any) -> list[int]:
        from fromnoise.generate.tools import generate_with_calculator
        from fromnoise.run.recipe import sampling_of

        sampling = sampling_of(**settings)
        max_new_tokens = sampling.max_new_tokens  # a number by now, whatever spelt it
        try:
            seed = operator.index(seed)  # anything else would be a bare error deep inside
        except TypeError:
            raise ValueError(f"seed = {seed!r}: must be a whole number") from None
        context = self.module.config.context_tokens
        if len(prompt) + max_new_tokens > context:
            raise UserError(f"{len(prompt)} prompt tokens and max_new_tokens={max_new_tokens} do not fit the context of {context} tokens; shorten one of them")
        given = ([prompt], max_new_tokens, stops, sampling, seed)
        with self._one_at_a_time:
            (generation,) = generate_with_calculator(self.engine, self.tokenizer, *given) if calculator else self.engine.generate(*given)
        return list(generation.token_ids)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text; never a control token, whatever the text spells. Raises ValueError for what is no text."""
        return self.tokenizer.encode(_text(text))

    def decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(list(ids))

    def logits(self, input_ids: Tensor | Sequence[int] | Sequence[Sequence[int]]) -> Tensor:
        """Next-token logits in float32: (B, T, V) for ids (B, T), (T, V) for ids (T,). No gradient.

        Raises ValueError for what are no token ids of this model, and for more of them than its context holds.
        """
        import torch

        ids = _token_ids(input_ids, self.module.config)
        with torch.no_grad():
            logits = self.module.logits(self.module(ids if ids.dim() == 2 else ids[None])).float()
        return logits if ids.dim() == 2 else logits[0]

    def __repr__(self) -> str:
        return f"Model({str(self.folder)!r})"


def _text(text: Any) -> str:
    if not isinstance(text, str):
        raise ValueError(f"text must be a string, not {text!r:.80}")
    return text


def _token_ids(input_ids: Any, config: ModelConfig) -> Tensor:
    """The ids as int64 (T,) or (B, T), checked: the embedding fails on some of what is none, and reads other ids than meant for the rest."""
    import torch

    try:
        ids = torch.as_tensor(input_ids)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:  # text, rows of different lengths, more than 64 bits
        raise ValueError(f"input_ids must be token ids, (T,) or (B, T) with rows of one length, not {input_ids!r:.80} ({error})") from None
    if ids.numel() == 0 or ids.dim() not in (1, 2):
        raise ValueError(f"input_ids must be token ids, (T,) or (B, T) and at least one, not of shape {tuple(ids.shape)}")
    if ids.dtype == torch.bool or ids.is_floating_point() or ids.is_complex():
        raise ValueError(f"input_ids must be whole numbers, not {str(ids.dtype).removeprefix('torch.')}")
    if ids.shape[-1] > config.context_tokens:
        raise ValueError(f"input_ids: {ids.shape[-1]} ids in a row are more than the model's context of {config.context_tokens} tokens; leave some out")
    ids = ids.long()
    wrong = ids[(ids < 0) | (ids >= config.vocab_size)]
    if len(wrong):
        raise ValueError(f"input_ids: there is no token {wrong[0].item()}; the model's are 0 to {config.vocab_size - 1}")
    return ids


def _conversation(messages: Any) -> list[dict[str, str]]:
    """The messages as the model was taught to read them: user and assistant by turns after an optional system message, the user last."""
    from fromnoise.data.conversation import checked

    turns = isinstance(messages, Sequence) and len(messages) > 0
    if not turns or not all(isinstance(turn, Mapping) and all(isinstance(turn.get(key), str) for key in ("role", "content")) for turn in messages):
        raise ValueError(f'messages must be text, or a list of {{"role": ..., "content": ...}} with text in both, not {messages!r:.80}')
    for number, turn in enumerate(messages, start=1):
        if turn["role"] not in ("system", "user", "assistant"):
            raise ValueError(f"message {number} has role {turn['role']!r}; it must be system, user or assistant")
        if turn["role"] == "system" and number > 1:
            raise ValueError(f"message {number} is the system's; there is one system message at most, and it comes first")
    if messages[-1]["role"] != "user":
        raise ValueError(f"the last message is the {messages[-1]['role']}'s; it must be the user's, which the assistant answers")
    return checked([dict(turn) for turn in messages], ends_with="user")


def _flatten(overrides: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Dotted keys and their values: text is read as on the command line, everything else is taken as it is."""
    return [(key, _plain(value)) for name, given in overrides.items() for key, value in one_by_one(name, given)]


def _plain(value: Any) -> Any:
    """A value as TOML would have given it: paths, and numbers of other libraries, as text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, (bool, int, float)) else str(value)
