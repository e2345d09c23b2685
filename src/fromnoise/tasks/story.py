"""Open requests with nothing to get wrong: a short story, an opinion, small talk. Judged by topic and form only."""

from __future__ import annotations

import random
from collections.abc import Sequence

from . import forms
from .example import Example, Verdict
from .text import find_value, words

ASKED = ("Tell me a short story about {t}.", "Write a few lines about {t}.", "Make up a little story about {t}.",
         "Tell me something about {t}.", "Can you write a very short story about {t}?")


def example(rng: random.Random, topic: str, topic_words: Sequence[str], answer: str) -> Example:
    return Example("story", rng.choice(ASKED).format(t=topic), answer, {"form": "sentences", "topic": list(topic_words)},
                   f"A short story about {topic}.\n", None, ("sentences",))


def small_talk(kind: str, prompt: str, answer: str, topic_words: Sequence[str]) -> Example:
    """kind: "greeting" or "opinion"."""
    return Example(kind, prompt, answer, {"form": "free", "topic": list(topic_words)}, prompt, None, ("free",))


def verify(check: dict, answer: str) -> Verdict:
    topic = check["topic"]
    relevant = any(find_value(word, answer) for word in topic) if topic else bool(words(answer))
    return Verdict(None, relevant, forms.form_ok(check["form"], answer))
