"""Putting prompts to a model folder: the same way for every measurement, so that decoding is the only difference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from fromnoise.data.tokenizer import Tokenizer
from fromnoise.generate.engine import Engine
from fromnoise.generate.rollout import Answers, RowShape, answer_logprobs, answer_scores
from fromnoise.model.flops import forward_flops
from fromnoise.model.heads import members_of
from fromnoise.model.hf import load_model, load_scorer

NUM_ROWS, ROW_TOKENS = 16, 256  # of the packed batches that score answers; rows grow in steps of 64 where an answer needs it


@dataclass(frozen=True, slots=True)
class Answer:
    prompt_ids: list[int]
    token_ids: list[int]  # with the stop token when stopped
    text: str
    stopped: bool


class Subject:
    """A causal model under measurement. Weights are read at first use and kept."""

    def __init__(self, name: str, folder: Path, machine, progress: Callable[[int, str], AbstractContextManager]):
        """progress: `StageContext.progress`, for the rate and the time left while it answers."""
        self.name, self.folder, self.machine, self.progress = name, folder, machine, progress
        self.scored_tokens = 0  # given to the model to be read, prompts included
        self.tokenizer = Tokenizer.load(folder)

    @cached_property
    def model(self):
        return load_model(self.folder).to(self.machine.device)

    @cached_property
    def engine(self) -> Engine:
        return Engine(self.model, dtype=self.machine.torch_dtype)

    @property
    def flops(self) -> float:
        """Of all that it has answered and scored so far."""
        if "model" not in self.__dict__:
            return 0.0
        generated = self.engine.num_tokens if "engine" in self.__dict__ else 0
        return forward_flops(self.model.config, self.scored_tokens + generated, ROW_TOKENS)

    def chat_prompt(self, messages: Sequence[dict]) -> list[int]:
        return self.tokenizer.encode_messages(list(messages), add_generation_prompt=True)[0]

    def plain_prompt(self, text: str) -> list[int]:
        """A text to be continued, as the base model saw texts in training."""
        return self.tokenizer.encode_beginning(text)

    def fits(self, prompt_ids: Sequence[int], max_new_tokens: int) -> bool:
        return len(prompt_ids) + max_new_tokens <= self.model.config.context_tokens

    @cached_property
    def chat_stops(self) -> set[int]:
        return set(self.tokenizer.chat_stop_ids)

    @cached_property
    def paragraph_stops(self) -> set[int]:
        """`<|endoftext|>` and every token that holds an empty line: where a plain-text answer ends."""
        tokenizer = self.tokenizer
        return {tokenizer.endoftext_id} | {i for i in range(len(tokenizer)) if b"\n\n" in tokenizer.decode_bytes([i])}

    def answer(self, prompts: Sequence[list[int]], sampling, seed: int, stop_ids: set[int] | None = None) -> list[Answer]:
        """One answer for each prompt, in order. `sampling`: a recipe's `SamplingSection`."""
        if not prompts:
            return []
        with self.progress(len(prompts), "answer") as progress:
            generations = self.engine.generate(list(prompts), sampling.max_new_tokens, stop_ids or self.chat_stops, sampling, seed, progress.advance)
        return [
            Answer(list(prompt), g.token_ids, self.tokenizer.decode_answer(g.token_ids), g.stopped)
            for prompt, g in zip(prompts, generations, strict=True)
        ]

    def logprobs(self, answers: Sequence[Answer], temperature: float = 1.0) -> list[float]:
        """Sum of log-probabilities (nats) of each answer's tokens, its stop token included."""
        if not answers:
            return []
        packed = _packed(answers, self.tokenizer.pad_id, self.machine.device)
        self.scored_tokens += packed.num_tokens
        values, _ = answer_logprobs(self.model, packed, packed.batches(), temperature, self.machine.autocast)
        return values.double().sum(dim=1).tolist()


class Scorer:
    """A reward model: one number for a prompt with its answer, in units of the normalisation stored with it."""

    def __init__(self, folder: Path, machine):
        self.folder, self.machine = folder, machine
        self.scored_tokens = 0  # prompts included

    @property
    def flops(self) -> float:
        """Of all that it has scored so far, by every member."""
        return forward_flops(self.model_config, self.scored_tokens * len(members_of(self.model)), ROW_TOKENS) if self.scored_tokens else 0.0

    @cached_property
    def model(self):
        return load_scorer(self.folder).to(self.machine.device)

    @property
    def model_config(self):
        return members_of(self.model)[0].backbone.config

    def scores(self, answers: Sequence[Answer], pad_id: int) -> list[float]:
        if not answers:
            return []
        packed = self._packed(answers, pad_id)
        return answer_scores(self.model, packed, packed.batches(), self.machine.autocast).tolist()

    def member_scores(self, answers: Sequence[Answer], pad_id: int) -> list[list[float]]:
        """The scores by each member of an ensemble, whose mean `scores` gives; of a single model, its own."""
        if not answers:
            return [[] for _ in members_of(self.model)]
        packed = self._packed(answers, pad_id)
        batches = packed.batches()
        return [answer_scores(member, packed, batches, self.machine.autocast).tolist() for member in members_of(self.model)]

    def _packed(self, answers: Sequence[Answer], pad_id: int) -> Answers:
        packed = _packed(answers, pad_id, self.machine.device)
        self.scored_tokens += packed.num_tokens
        return packed


def _packed(answers: Sequence[Answer], pad_id: int, device) -> Answers:
    longest = max(len(a.prompt_ids) + len(a.token_ids) for a in answers)
    shape = RowShape(max(ROW_TOKENS, -(-longest // 64) * 64), NUM_ROWS, pad_id, device)
    return Answers([a.prompt_ids for a in answers], [a.token_ids for a in answers], shape)
