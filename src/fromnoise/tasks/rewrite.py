"""Saying a given sentence in another way: past tense, politely, shorter, in capitals."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from . import forms
from .example import Example, Verdict
from .text import content_words, find_value, lower_words, sentences

ASKED = {
    "past": ("Put this in the past tense: {x}", "Write this in the past tense: {x}", "Say this as if it were yesterday: {x}",
             "Change this to the past: {x}"),
    "polite": ("Make this polite: {x}", "Say this politely: {x}", "Ask for this in a polite way: {x}", "Put this more kindly: {x}"),
    "shorter": ("Make this shorter: {x}", "Shorten this sentence: {x}", "Say this in fewer words: {x}", "Cut the needless words: {x}"),
    "capitals": ("Write this in capital letters: {x}", "Put this in capitals: {x}", "Capital letters, please: {x}"),
}
PLAIN = {"past": "{x}\nIn the past tense:", "polite": "{x}\nMore politely:", "shorter": "{x}\nIn fewer words:",
         "capitals": "{x}\nIn capital letters:"}


def example(rng: random.Random, way: str, given: str, answer: str, accept: Sequence[str] = (), must: Sequence[str] = ()) -> Example:
    """way: a key of ASKED. accept: exact right answers, apart from case and stops (the ideal one is added).
    must: words an answer has to keep, for the ways that leave room (polite, shorter)."""
    check = {"form": "capitals" if way == "capitals" else "free", "way": way, "given": given, "accept": [answer, *accept],
             "must": list(must)}
    return Example("rewrite", rng.choice(ASKED[way]).format(x=given), answer, check, PLAIN[way].format(x=given), None, (way,))


def _plain(text: str) -> str:
    return " ".join(lower_words(text))


def verify(check: dict, answer: str) -> Verdict:
    said, given = _plain(answer), _plain(check["given"])
    exact = said in {_plain(text) for text in check["accept"]}
    kept = all(find_value(word, answer) for word in check["must"])
    one = len(sentences(answer)) == 1
    if check["way"] == "polite":
        asks = re.search(r"\bplease\b|\b(?:could|would|might|may) (?:you|i|we)\b|\bbe so kind\b|\bwould you mind\b", answer, re.IGNORECASE)
        extra = len(said.split()) - len(given.split())
        correct = exact or (bool(asks) and kept and one and extra <= 8 and "not" not in said.split())
    elif check["way"] == "shorter":
        same = [word for word in said.split() if word not in given.split()]
        correct = exact or (kept and one and len(said.split()) <= 0.85 * len(given.split()) and not same)
    elif check["way"] == "capitals":
        correct = exact and answer == answer.upper()
    else:
        correct = exact
    relevant = bool(content_words(answer) & content_words(check["given"])) or exact
    return Verdict(correct, relevant, forms.form_ok(check["form"], answer))
