"""chat: talk to a run's models in the terminal, one of them or all side by side.

Reads a run folder or any model folder, writes nothing. Works piped: without a terminal each input line is a message
and each answer is printed under its model's name.

The context. A model sees `context_tokens` tokens, of which `max_new_tokens` are kept free for its answer. A
conversation that no longer fits loses its oldest exchanges, whole ones (question and answer), and a line says so. The
newest message is never cut: when it alone does not fit it is refused, with the numbers.

The base model has not been taught to converse. In chat it gets the message as the beginning of a text and goes on
with it; it does not see earlier messages.
"""

from __future__ import annotations

import codecs
import io
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from fromnoise.evaluate.text import visible
from fromnoise.run.errors import UserError
from fromnoise.run.recipe import SamplingSection, sampling_of
from fromnoise.run.seeds import seed_from
from fromnoise.run.verdict import MODELS, models_of_run

HELP = "/reset forgets the conversation, /quit leaves (so does Ctrl-D); Ctrl-C stops an answer."


class TooLong(Exception):
    """The newest message alone does not fit."""

    def __init__(self, tokens: int, room: int, context_tokens: int, max_new_tokens: int):
        super().__init__(
            f"this message takes {tokens} tokens with its frame; {room} are free "
            f"(context {context_tokens}, {max_new_tokens} of them kept for the answer). Shorten it, or lower --max-new-tokens."
        )


@dataclass
class Chatter:
    """One model in one conversation."""

    name: str
    tokenizer: object
    engine: object
    context_tokens: int
    is_base: bool
    sampling: SamplingSection
    seed: int
    calculator: bool = False  # its calls are answered while it writes
    messages: list[dict[str, str]] = field(default_factory=list)
    num_answers: int = 0

    def reset(self) -> None:
        self.messages.clear()

    def prompt(self, message: str) -> tuple[list[int], int]:
        """(token ids, exchanges forgotten) for the conversation so far and a new message. Raises TooLong."""
        room = self.context_tokens - self.sampling.max_new_tokens
        if self.is_base:
            ids = self.tokenizer.encode_beginning(message)
            if len(ids) > room:
                raise TooLong(len(ids), room, self.context_tokens, self.sampling.max_new_tokens)
            return ids, 0
        newest = {"role": "user", "content": message}
        for forgotten in range(len(self.messages) // 2 + 1):
            kept = [*self.messages[2 * forgotten :], newest]
            ids, _ = self.tokenizer.encode_messages(kept, add_generation_prompt=True)
            if len(ids) <= room:
                return ids, forgotten
        raise TooLong(len(ids), room, self.context_tokens, self.sampling.max_new_tokens)

    def stream(self, message: str) -> Iterator[str]:
        """Pieces of the answer as they come, safe to print; the exchange is remembered when the answer ends.

        An answer that is interrupted (the generator closed) is remembered as far as it went.
        """
        ids, forgotten = self.prompt(message)
        if forgotten:
            del self.messages[: 2 * forgotten]
        stops = {self.tokenizer.endoftext_id} if self.is_base else set(self.tokenizer.chat_stop_ids)
        seed = seed_from(self.seed, self.num_answers)  # all models draw with the same noise: answers that differ do so by the weights
        self.num_answers += 1
        given = (ids, self.sampling.max_new_tokens, stops, self.sampling, seed)
        if self.calculator:
            from fromnoise.generate.tools import stream_with_calculator

            tokens = stream_with_calculator(self.engine, self.tokenizer, *given)
        else:
            tokens = self.engine.stream(*given)
        decoder = codecs.getincrementaldecoder("utf-8")("replace")  # a character may be spread over several tokens
        answer, lead = [], "" if self.is_base else self.tokenizer.answer_lead
        held = ""  # how the answer begins, as long as it may become the template's lead, of one token or of several
        try:
            for token in tokens:
                if token in stops:
                    break
                piece = held + decoder.decode(self.tokenizer.decode_bytes([token]))
                if piece != lead and lead.startswith(piece):
                    held = piece
                    continue
                answer.append(piece.removeprefix(lead))
                lead = held = ""
                if answer[-1]:
                    yield visible(answer[-1])
            answer.append(held + decoder.decode(b"", final=True))
            if answer[-1]:
                yield visible(answer[-1])
        finally:
            if not self.is_base:
                self.messages += [{"role": "user", "content": message}, {"role": "assistant", "content": "".join(answer)}]


def find_models(target: Path, stage: str | None, compare: bool) -> list[tuple[str, Path]]:
    """(name, model folder) of what to talk to: a model folder itself, or a run's latest stage, the named one, or all."""
    if stage and compare:
        raise UserError(f"--stage {stage} asks for one model and --compare for all of them; give one of the two")
    if not target.exists():
        raise UserError(f"{target} does not exist; give a run folder (runs/world) or a model folder (runs/world/sft)")
    if (target / "config.json").exists():
        if compare:
            raise UserError(f"--compare needs a run folder; {target} is a single model folder")
        if stage:
            raise UserError(f"--stage {stage} needs a run folder; {target} is a single model folder: leave --stage out")
        return [(target.resolve().name, target)]
    there = models_of_run(target)
    if not there:
        raise UserError(f"{target} holds no finished model (looked for {', '.join(MODELS)}); `fromnoise run` makes them")
    if stage:
        chosen = [pair for pair in there if pair[0] == stage]
        if not chosen:
            raise UserError(f"{target} has no finished stage {stage!r}; finished: {', '.join(name for name, _ in there)}")
        return chosen
    return there if compare else there[-1:]


def is_base_model(folder: Path) -> bool:
    """Whether pretraining wrote it, `base` or `base/checkpoints/step-...`: the tokenizer knows the chat template, the model never saw it."""
    return any("base" in (path.name, path.parent.parent.name if path.parent.name == "checkpoints" else "") for path in (folder.absolute(), folder.resolve()))


def load_chatter(name: str, folder: Path, sampling: SamplingSection, seed: int, max_new_tokens: int | None) -> Chatter:
    """The model in `folder`, ready to answer. `max_new_tokens` None: a quarter of the context, at most 256."""
    from fromnoise.data.tokenizer import Tokenizer
    from fromnoise.generate.engine import Engine
    from fromnoise.model.hf import check_vocabulary, load_model, wants_calculator

    tokenizer, model = Tokenizer.load(folder), load_model(folder)
    check_vocabulary(model.config, len(tokenizer), folder)
    context = model.config.context_tokens
    new_tokens = min(256, context // 4) if max_new_tokens is None else max_new_tokens
    if new_tokens >= context:
        raise UserError(f"--max-new-tokens {new_tokens} leaves no room in a context of {context} tokens")
    engine, is_base = Engine(model, max_batch=1), is_base_model(folder)
    if not is_base:  # the template is compiled now: an import of its compiler that Ctrl-C cuts off cannot be made up for
        tokenizer.encode_messages([{"role": "user", "content": "Hello"}], add_generation_prompt=True)
    sampling = sampling.model_copy(update={"max_new_tokens": new_tokens})
    return Chatter(name, tokenizer, engine, context, is_base, sampling, seed, wants_calculator(folder))


def run(
    target: str | Path,
    *,
    stage: str | None = None,
    compare: bool = False,
    temperature: float = 0.7,
    top_p: float = 1.0,
    repetition_penalty: float = 1.0,
    max_new_tokens: int | None = None,
    seed: int = 0,
    stdin: TextIO | None = None,
    stdout: TextIO | None = None,
) -> None:
    """Chat until the input ends. Raises UserError for a target that is not there, and for settings that cannot be meant."""
    stdin, stdout = stdin or sys.stdin or io.StringIO(), stdout or sys.stdout or io.StringIO()  # Python has None for one that is closed
    asked = {"temperature": temperature, "top_p": top_p, "repetition_penalty": repetition_penalty, "max_new_tokens": max_new_tokens}
    sampling = sampling_of(**{name: value for name, value in asked.items() if value is not None})
    chatters = [load_chatter(n, folder, sampling, seed, max_new_tokens) for n, folder in find_models(Path(target), stage, compare)]
    on_terminal = stdin.isatty() and stdout.isatty()
    if on_terminal:
        say = "temperature 0, the likeliest token each time" if temperature == 0 else f"temperature {temperature}"
        print(f"{', '.join(c.name for c in chatters)} · {say} · context {chatters[0].context_tokens} tokens\n{HELP}", file=stdout)
        if any(chatter.is_base for chatter in chatters):
            print("base continues your text: it has not been taught to answer, and does not see earlier messages.", file=stdout)
    for message in _messages(stdin, stdout, on_terminal):
        if message == "/quit":
            return
        if message == "/reset":
            for chatter in chatters:
                chatter.reset()
            print("(forgotten)", file=stdout)
        elif message.startswith("/"):
            print(f"unknown command {visible(message.split()[0])}. {HELP}", file=stdout)
        else:
            try:
                _answer(chatters, message, stdout, on_terminal)
            except KeyboardInterrupt:  # before the first token, or between two models
                if not on_terminal:
                    raise
                print("(stopped)", file=stdout)
        stdout.flush()


def _messages(stdin: TextIO, stdout: TextIO, on_terminal: bool) -> Iterator[str]:
    """What is typed, one message a line, stripped, until the input ends. Empty lines are passed over."""
    if on_terminal:
        with suppress(ImportError):  # arrow keys and history at the prompt, where Python has them
            import readline  # noqa: F401
    if isinstance(stdin, io.TextIOWrapper):
        with suppress(io.UnsupportedOperation):  # something was read from it already
            stdin.reconfigure(errors="surrogateescape")  # a strict decoder drops, with one bad byte, every line that it was handed at once
    while True:
        try:
            line = input("\nyou: ") if on_terminal and stdin is sys.stdin else stdin.readline()
            line.encode()  # fails for bytes that were no text
        except (EOFError, KeyboardInterrupt):
            print(file=stdout)
            return
        except UnicodeError:
            print("(a line that is not UTF-8 was passed over)", file=stdout)
            continue
        if not on_terminal and line == "":
            return
        if line.strip():
            yield line.strip()


def _notice(chatter: Chatter, message: str) -> tuple[str | None, bool]:
    """(what to tell before the answer, whether there is an answer to come)."""
    try:
        _, forgotten = chatter.prompt(message)
    except TooLong as error:
        return f"({error})", False
    if not forgotten:
        return None, True
    noun = "exchange" if forgotten == 1 else "exchanges"
    return f"(the conversation outgrew the context of {chatter.context_tokens} tokens: the oldest {forgotten} {noun} forgotten)", True


def _answer(chatters: Sequence[Chatter], message: str, stdout: TextIO, on_terminal: bool) -> None:
    number = max(chatter.num_answers for chatter in chatters)
    for chatter in chatters:  # one that had no room for a message, or whose turn Ctrl-C took, draws as the others from now on
        chatter.num_answers = number
    if on_terminal and len(chatters) > 1:
        _answer_in_columns(chatters, message)
        return
    for chatter in chatters:
        _answer_in_lines(chatter, message, stdout, labelled=len(chatters) > 1 or not on_terminal)


def _answer_in_lines(chatter: Chatter, message: str, stdout: TextIO, labelled: bool) -> None:
    label = f"{chatter.name}: " if labelled else ""
    notice, answers = _notice(chatter, message)
    if notice:
        print(f"{label}{notice}", file=stdout)
    if not answers:
        return
    stdout.write(label)
    stream = chatter.stream(message)
    try:
        for piece in stream:
            stdout.write(piece)
            stdout.flush()
    except KeyboardInterrupt:
        stdout.write(" (stopped)")
    finally:
        stream.close()
    stdout.write("\n")


@contextmanager
def _ctrl_c_afterwards() -> Iterator[None]:
    """Ctrl-C inside comes when all inside is done: a table half started draws over what comes later and hides the cursor."""
    asked: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: asked.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if asked:
        raise KeyboardInterrupt


def _answer_in_columns(chatters: Sequence[Chatter], message: str) -> None:
    """All models' answers, one column each, growing as they come."""
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table
    from rich.text import Text

    texts = {chatter.name: "" for chatter in chatters}

    def table() -> Table:
        grid = Table(expand=True, show_lines=False)
        for chatter in chatters:
            grid.add_column(f"{chatter.name} (continues)" if chatter.is_base else chatter.name, ratio=1, overflow="fold")
        grid.add_row(*(Text(texts[chatter.name]) for chatter in chatters))  # Text: an answer's [brackets] are no markup
        return grid

    # A frame higher than the terminal could not be taken back, so its end is cut until all is said; what then stands there is whole.
    live = Live(table(), console=Console(), refresh_per_second=12)
    try:
        with _ctrl_c_afterwards():
            live.start(refresh=True)
        for chatter in chatters:
            notice, answers = _notice(chatter, message)
            if notice:
                texts[chatter.name] = notice + "\n"
            if not answers:
                continue
            stream = chatter.stream(message)
            try:
                for piece in stream:
                    texts[chatter.name] += piece
                    live.update(table())
            except KeyboardInterrupt:
                texts[chatter.name] += " (stopped)"
            finally:
                stream.close()
        live.update(table())
    finally:
        with _ctrl_c_afterwards():
            live.stop()
