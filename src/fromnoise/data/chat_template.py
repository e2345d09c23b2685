"""Rendering chat templates, our own and the Hub's, so that no message can forge a control token.

A template is a jinja program that comes with a model, so it runs in jinja's sandbox. What it renders mixes control
tokens of its own ("<|im_start|>") with the messages' text, and text may spell a control token too. So every control
token that a message spells is broken by a guard character before rendering: the ones left are the template's. Guards
are taken out again when the pieces between control tokens are encoded.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

from fromnoise.run.errors import UserError

# The space is the answer's first token's, as it is that of every word in running text: " clarinet" in a passage and at the start of an
# answer are one token, which can be copied; "clarinet" after a line end shares no token with it, and its spelling has to be learnt word
# by word (3 % of such answers were right instead of 97 %, docs/lab-notebook.md).
ANSWER_LEAD = " "
TURN_END = "{{ '\n' }}"
CHATML = (
    "{%- for message in messages -%}"
    "{%- set content = message['content'] | trim -%}"
    "{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{%- if message['role'] == 'assistant' -%}"
    "{% generation %}{{ ('" + ANSWER_LEAD + "' if content else '') + content + '<|im_end|>' }}{% endgeneration %}"
    "{%- else -%}"
    "{{ content + '<|im_end|>' }}"
    "{%- endif -%}"
    + TURN_END
    + "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}"
)  # `trim`: the line end before an answer never grows with it, so the prompt's tokens are always a prefix of the whole
CHATML_SCORED = CHATML.replace(TURN_END, "{%- if add_generation_prompt or not loop.last -%}" + TURN_END + "{%- endif -%}")

# Templates that ask for today's date get this one, always: a prompt must not depend on the day (docs/decisions.md). It is the date that
# Llama 3's templates write where they cannot ask.
TEMPLATE_DAY = datetime(2024, 7, 26)


class Piece(NamedTuple):
    """A stretch of a rendered conversation: a control token of the template's, or text."""

    text: str
    is_control: bool
    assistant: list[tuple[int, int]]  # character ranges of `text` that the assistant says, from `{% generation %}`


def scored(template: str) -> str:
    """The template for a reward model's folder: nothing behind the last turn. Other tools score what `apply_chat_template` gives at its last
    token, which was a line end that no reward was ever read at: 67 % of held-out choices right for 72 % at the end of the answer."""
    if template in (CHATML, CHATML_SCORED):
        return CHATML_SCORED
    whole = template.removesuffix("\n")  # jinja passes over it at a template's end alone
    return "{% set rendered %}" + whole + "{% endset %}{{ rendered if add_generation_prompt else rendered.rstrip() }}"


def has_marks(template: str) -> bool:
    """Whether the template says itself, by `{% generation %}`, what the assistant says."""
    return re.search(r"\{%[-+]?\s*generation\b", template) is not None


@lru_cache(maxsize=8)
def _compiled(template: str):
    """The template in transformers' dialect: `{% generation %}`, break and continue, `raise_exception`, `tojson`, and
    `strftime_now`, whose day never changes."""
    import json

    import jinja2
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        tags = {"generation"}  # noqa: RUF012  jinja's name

        def parse(self, parser):
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            call = self.call_method("mark", [jinja2.nodes.ContextReference()])
            return jinja2.nodes.CallBlock(call, [], [], body).set_lineno(line)

        def mark(self, context, caller) -> str:
            begin, end = context["fromnoise_marks"]
            return begin + caller() + end

    def raise_exception(message: str) -> None:
        raise UserError(f"the chat template refuses these messages: {message}")

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    environment.filters["tojson"] = lambda value, **options: json.dumps(value, ensure_ascii=False, **options)
    environment.globals |= {"raise_exception": raise_exception, "strftime_now": TEMPLATE_DAY.strftime}
    try:
        return environment.from_string(template)
    except jinja2.TemplateError as error:
        raise UserError(f"the chat template of this tokenizer cannot be compiled: {error}") from None


def render(
    template: str, messages: Sequence[dict], controls: Sequence[str], *, add_generation_prompt: bool = False, variables: dict[str, Any] | None = None
) -> list[Piece]:
    """The pieces of `messages` rendered by `template`, in order. `controls`: the spellings of all control tokens.

    Errors: UserError where the template fails or refuses the messages.
    """
    compiled = _compiled(template)
    guard, begin, end = _unused_characters(messages)
    splitter = _splitter(tuple(controls))
    try:
        text = compiled.render(
            messages=_guarded(messages, splitter, guard),
            add_generation_prompt=add_generation_prompt,
            tools=None,
            documents=None,
            fromnoise_marks=(begin, end),
            **(variables or {}),
        )
    except UserError:
        raise
    except Exception as error:  # a program that came with a model may fail in any way
        raise UserError(f"the chat template fails on these messages: {error}") from None
    return _pieces(text, splitter, guard, begin, end)


@lru_cache(maxsize=8)
def _splitter(controls: tuple[str, ...]) -> re.Pattern:
    return re.compile("(" + "|".join(map(re.escape, sorted(controls, key=len, reverse=True))) + ")")


def _unused_characters(messages: Sequence[dict]) -> list[str]:
    """Three characters of the private use area that stand in no message."""
    used = set(repr(messages)) if not _is_plain(messages) else set().union(*(value for message in messages for value in message.values()))
    free = (chr(code) for code in range(0xE000, 0xF8FF) if chr(code) not in used)
    return [next(free), next(free), next(free)]


def _is_plain(messages: Sequence[dict]) -> bool:
    return all(isinstance(value, str) for message in messages for value in message.values())


def _guarded(value: Any, splitter: re.Pattern, guard: str) -> Any:
    if isinstance(value, str):
        return splitter.sub(lambda match: match.group()[0] + guard + match.group()[1:], value) if splitter.search(value) else value
    if isinstance(value, dict):
        return {key: _guarded(inner, splitter, guard) for key, inner in value.items()}
    return [_guarded(inner, splitter, guard) for inner in value] if isinstance(value, (list, tuple)) else value


def _pieces(text: str, splitter: re.Pattern, guard: str, begin: str, end: str) -> list[Piece]:
    pieces, speaking = [], False
    for index, part in enumerate(splitter.split(text)):
        kept, ranges, start = part.replace(guard, ""), [], 0
        if begin in kept or end in kept:
            runs = re.split(f"([{begin}{end}])", kept)
            kept = "".join(runs[::2])
            for run in runs:
                if run in (begin, end):
                    speaking = run == begin
                    continue
                if run and speaking:
                    ranges.append((start, start + len(run)))
                start += len(run)
        elif speaking:
            ranges = [(0, len(kept))]
        if kept:
            pieces.append(Piece(kept, index % 2 == 1, ranges))  # of what is split by one group every second part is a control token
    return pieces
