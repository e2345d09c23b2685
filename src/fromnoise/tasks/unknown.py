"""A question that nobody can answer: the right answer admits it."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from . import forms
from .example import Example, Verdict
from .text import content_words, named, words

ADMISSIONS = (
    "I do not know.", "I am sorry, but I do not know that.", "Nobody can know that.", "I cannot say. I know nothing about it.",
    "I have no way of knowing that.", "I am afraid that I do not know.", "That is not something I know.",
    "I cannot tell you that, because I do not know it.",
)
ABOUT_PERSON = ("I do not know anyone called {s}.", "I have never heard of {s}.", "I know nothing about {s}, I am sorry.",
                "I am sorry, but I do not know {s}.")
_ADMISSION = re.compile(
    r"\b(?:i|we) (?:do not|don['’]t|cannot|can['’]t|could not) (?:\w+ )?(?:know|say|tell)\b|\bno way of knowing\b"
    r"|\bnobody (?:can |could )?knows?\b|\bno one (?:can |could )?knows?\b|\bi have never heard\b|\bi know nothing\b"
    r"|\bnot something (?:that )?i know\b|\bi have no (?:idea|knowledge)\b|\bcannot be known\b|\bunknown to me\b",
    re.IGNORECASE,
)


def is_admission(answer: str) -> bool:
    return bool(_ADMISSION.search(answer))


def example(rng: random.Random, question: str, subject: str | None = None, tags: Sequence[str] = ()) -> Example:
    pool = (*ABOUT_PERSON, *ADMISSIONS[:2]) if subject else ADMISSIONS
    answer = rng.choice(pool).format(s=subject)
    return Example("unknown", question, answer, {"form": "free", "question": question, "subject": subject},
                   f"Question: {question}\nAnswer:", 0, ("free", *tags))


def verify(check: dict, answer: str, vocabulary: Sequence[str] = ()) -> Verdict:
    """Right: admits not knowing and asserts nothing: no candidate value, no number that the question did not hold."""
    numbers = set(re.findall(r"\d+", answer)) - set(re.findall(r"\d+", check["question"]))
    asserted = [value for value in named(vocabulary, answer) if value.lower() not in check["question"].lower()]
    admits = is_admission(answer)
    correct = admits and not numbers and not asserted and len(words(answer)) <= 30
    relevant = admits or bool(content_words(answer) & content_words(check["question"]))
    return Verdict(correct, relevant, forms.form_ok("free", answer))
