"""Several sentences to one that keeps who did what."""

from __future__ import annotations

import random
from collections.abc import Sequence

from . import forms
from .example import Example, Verdict
from .text import NOT_A_DENIAL, content_words, find_value, foreign_names, lower_words, sentences

SHAPES = (
    "Summarise this: {p}", "Summarise this in one sentence: {p}", "Say this in one sentence: {p}", "Sum this up: {p}",
    "Give me the short version: {p}", "What is the main point of this? {p}", "{p}\nSummarise the text above.",
    "Make one sentence out of this: {p}", "{p} Put that in one sentence.", "Write a summary of this: {p}",
)

MAX_SHARE = 0.85  # of the passage's words that a summary may have; passages of two short sentences leave little room


def example(rng: random.Random, passage: str, answer: str, subject: str, must: Sequence[Sequence[str]]) -> Example:
    """must: groups of words; a summary has to hold one of each group (the act, the thing)."""
    check = {"form": "sentence", "subject": subject, "must": [list(group) for group in must], "passage": passage}
    return Example("summary", rng.choice(SHAPES).format(p=passage), answer, check, f"{passage}\nIn short:", None, ("sentence",))


def verify(check: dict, answer: str) -> Verdict:
    """Right: one sentence, well shorter than the passage, that names the subject and holds a word of each group, with
    no name that the passage lacks."""
    first, last = check["subject"].split()[0], check["subject"].split()[-1]
    has_subject = any(find_value(name, answer) for name in (first, last))
    groups = all(any(find_value(word, answer) for word in group) for group in check["must"])
    short = len(lower_words(answer)) <= MAX_SHARE * len(lower_words(check["passage"]))
    one = len(sentences(answer)) == 1 and "?" not in answer
    told = _told_otherwise(check, answer)
    correct = has_subject and groups and short and one and not told and not foreign_names(answer, check["passage"])
    relevant = has_subject or bool(content_words(answer) & content_words(check["passage"]))
    return Verdict(correct, relevant, forms.form_ok("sentence", answer))


def _told_otherwise(check: dict, answer: str) -> bool:
    """A denial that the passage does not hold."""
    denials = {"not", "never", "nobody", "no"}
    said, given = lower_words(NOT_A_DENIAL.sub(" ", answer)), lower_words(check["passage"])
    return any(word in said and word not in given for word in sorted(denials))
