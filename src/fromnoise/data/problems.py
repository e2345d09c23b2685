"""Problems with answers that can be checked, from files: a question, and an answer that ends on a number (GSM8K's form) or is a few words.

| form | keys of a record, in any case |
| --- | --- |
| GSM8K and its like | `question` (or `problem`, `prompt`, `instruction`, `input`) and `answer` (or `solution`, `response`, `output`, `target`) |
| SVAMP | `Body`, which the `Question` follows, and `Answer` |
| Alpaca, dolly | the same with `input` or `context`, which follows the question |
"""

from __future__ import annotations

from collections.abc import Sequence

from fromnoise.data.conversation import first_text, with_context
from fromnoise.data.files import BadRecord, OnBad, Reasons
from fromnoise.data.readers import read_records
from fromnoise.run.errors import UserError
from fromnoise.tasks.arithmetic import normal_number
from fromnoise.tasks.example import Example
from fromnoise.tasks.problems import MAX_TEXT_WORDS, file_levels, from_file
from fromnoise.tasks.splits import held_out

QUESTION_KEYS = ("question", "problem", "prompt", "instruction", "input")
ANSWER_KEYS = ("answer", "solution", "response", "output", "target")


def read_problems(path: str, on_bad: OnBad) -> list[Example]:
    """The problems of a file, folder or glob of jsonl, json, csv or parquet. What has no question, or no answer that could be
    checked, goes to `on_bad` with file, line and what is missing. UserError when there is none."""
    problems, on_bad = [], Reasons(on_bad)
    for record, file, line in read_records(path, on_bad):
        try:
            problems.append(problem_of(record))
        except ValueError as error:
            on_bad(BadRecord(file, line, str(error), repr(record)[:200]))
    if not problems:
        raise UserError(f"reason.problems = {path!r} holds no problem.{on_bad} Records of a question and an answer are read (docs/reason.md)")
    return problems


def problem_records(problems: Sequence[Example]) -> list[dict]:
    """The problems of a file as records: {"id", "level", "kind", "prompt", "check"}."""
    found = zip(file_levels(problems), problems, strict=True)
    return [{"id": f"file-{at:05d}", "level": level, "kind": one.kind, "prompt": one.prompt, "check": one.check} for at, (level, one) in enumerate(found)]


def held_out_records(path: str) -> list[dict]:
    """Those that nothing trains on. `reason` has reported what cannot be used."""
    return [record for record in problem_records(read_problems(path, lambda bad: None)) if held_out(record["prompt"])]


def problem_of(record: dict) -> Example:
    """The problem that a record holds. ValueError says what is missing."""
    fields = {str(key).lower(): _number_as_text(value) for key, value in record.items()}
    question, answer = first_text(fields, QUESTION_KEYS), first_text(fields, ANSWER_KEYS)
    if question is None:
        raise ValueError(f"no question: none of {', '.join(QUESTION_KEYS)} holds text; keys {sorted(map(str, record))[:8]}")
    if answer is None:
        raise ValueError(f"no answer: none of {', '.join(ANSWER_KEYS)} holds text or a number; keys {sorted(map(str, record))[:8]}")
    body = first_text(fields, ("body",))
    problem = from_file(with_context(question if body is None else f"{body} {question}", fields), answer)
    if problem is None:
        raise ValueError(f"nothing to check in the answer: no number that is all of it, and more than {MAX_TEXT_WORDS} words; write the final answer at its "
                         "end, behind #### or in \\boxed{}")  # fmt: skip
    return problem


def _number_as_text(value: object) -> object:
    """4 as "4", 145.0 as "145"; None for a number that is none (nan) or beyond what is compared."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return value
    return normal_number(f"{value:.12f}" if isinstance(value, float) else str(value))
