"""Problems with answers that can be checked, from files: a `question` and an `answer` that ends on a number (GSM8K's form)."""

from __future__ import annotations

from fromnoise.data.conversation import first_text
from fromnoise.data.files import BadRecord, OnBad
from fromnoise.data.readers import read_records
from fromnoise.tasks.example import Example
from fromnoise.tasks.problems import from_file

QUESTION_KEYS = ("question", "problem", "prompt", "instruction")
ANSWER_KEYS = ("answer", "solution", "response", "output")


def read_problems(path: str, on_bad: OnBad) -> list[Example]:
    """The problems of a file, folder or glob of jsonl, json, csv or parquet. What has no question, or no number in its
    answer, goes to `on_bad`: nothing could be checked by it."""
    problems = []
    for record, file, line in read_records(path, on_bad):
        question, answer = first_text(record, QUESTION_KEYS), first_text(record, ANSWER_KEYS)
        problem = from_file(question, answer) if question and answer else None
        if problem is None:
            missing = next((name for name, text in (("question", question), ("answer", answer)) if not text), "number in the answer")
            on_bad(BadRecord(file, line, f"no {missing}: keys {sorted(map(str, record))[:8]}", repr(record)[:200]))
        else:
            problems.append(problem)
    return problems
