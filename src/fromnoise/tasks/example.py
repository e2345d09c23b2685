"""What a task makes (`Example`) and what its verifier says (`Verdict`)."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Example:
    """One request with an ideal plain answer and all that is needed to judge other answers."""

    kind: str  # fact, context, sum, summary, list, rewrite, story, unknown, harmful, lookalike, ambiguous, ...
    prompt: str  # what the user says
    answer: str  # ideal, direct, in the asked form
    check: dict  # JSON payload for `verify`; "form" names the asked form
    plain: str = ""  # the same request as text that a base model would continue
    mentions: int | None = None  # of the fact in the documents, for closed-book questions
    tags: tuple[str, ...] = ()
    source_id: str | None = None  # the world's fact, when there is one
    before: tuple[dict, ...] = field(default=())  # earlier turns of the same conversation


@dataclass(frozen=True, slots=True)
class Verdict:
    """correct is None where nothing can be right or wrong (a story, small talk)."""

    correct: bool | None
    relevant: bool
    form_ok: bool
