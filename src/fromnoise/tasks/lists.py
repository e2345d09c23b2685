"""Listing: things of a kind, or the things that a text names."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from . import forms
from .example import Example, Verdict
from .text import named, words

NUMBERS = {2: "two", 3: "three", 4: "four"}
ASKED = ("Name {n} {kind}.", "List {n} {kind}.", "Give me {n} {kind}.", "Can you name {n} {kind}?", "Tell me {n} {kind}.",
         "What are {n} {kind}?", "I need {n} {kind}.")
AS_LIST = ("Number them.", "Write a numbered list.", "Make it a numbered list.", "Put a number before each.")
FROM_TEXT = ("{p} List the things that {s} {did}.", "{p} What did {s} {do}? Make a list.", "Read this: {p} Name the things that {s} {did}.",
             "{p}\nList what {s} {did}.")


def join(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def write(items: Sequence[str], form: str) -> str:
    """Numbered lines, or one line with commas and a full stop. Items are spelled as in running text."""
    if form == "numbered":
        return "\n".join(f"{index}. {item}" for index, item in enumerate(items, 1))
    return f"{join(items)}."


def request(prompt: str) -> str:
    """What a prompt asks for, without the words that only say how a list is to be laid out: two that differ in those alone ask the same."""
    return next((prompt.removesuffix(f" {layout}") for layout in AS_LIST if prompt.endswith(f" {layout}")), prompt)


def of_kind(rng: random.Random, kind: str, allowed: Sequence[str]) -> Example:
    """kind: plural noun phrase ("animals", "tools for the garden"); allowed: all right items, singular."""
    count = rng.choice((2, 3, 3))
    items = rng.sample(list(allowed), count)
    form = rng.choice(("list", "list", "numbered"))
    prompt = rng.choice(ASKED).format(n=NUMBERS[count], kind=kind)
    if form == "numbered":
        prompt += " " + rng.choice(AS_LIST)
    check = {"form": form, "count": count, "allowed": list(allowed), "passage": None}
    return Example("list", prompt, write(items, form), check, f"{NUMBERS[count].capitalize()} {kind}:", None, (form, "of_kind"))


def from_text(rng: random.Random, passage: str, subject: str, did: str, do: str, items: Sequence[str]) -> Example:
    """did/do: the act in the past tense and plain form ("bought", "buy"); items stand in the passage in this order."""
    form = rng.choice(("list", "list", "numbered"))
    prompt = rng.choice(FROM_TEXT).format(p=passage, s=subject.split()[0], did=did, do=do)
    if form == "numbered":
        prompt += " " + rng.choice(AS_LIST)
    check = {"form": form, "count": len(items), "allowed": list(items), "passage": passage}
    return Example("list", prompt, write(items, form), check, f"{passage}\nThings that {subject} {did}:", None, (form, "from_text"))


def split_items(answer: str) -> list[str]:
    """The items of a list in any shape: numbered or dashed lines, or a line with commas and "and"."""
    lines = [re.sub(r"^\s*(?:\d+[.)]|[-*])\s*", "", line).strip() for line in answer.strip().splitlines() if line.strip()]
    if len(lines) == 1:
        body = re.sub(r"^.*?(?:\bare\b|:)\s*", "", lines[0]) if re.search(r"\bare\b|:", lines[0]) else lines[0]
        lines = re.split(r",\s*(?:and\s+)?|\s+and\s+", body)
    cleaned = (re.sub(r"^(?:a|an|the|some)\s+", "", line.strip(" .!?"), flags=re.IGNORECASE) for line in lines)
    return [item for item in cleaned if item]


def verify(check: dict, answer: str) -> Verdict:
    """Right: exactly the asked number of different items, each of them allowed and nothing else beside it."""
    items = split_items(answer)
    allowed, count = check["allowed"], check["count"]
    hits = [named(allowed, item) for item in items]
    pure = all(len(found) == 1 and len(words(item)) <= len(found[0].split()) + 1 for found, item in zip(hits, items, strict=True))
    different = len({found[0] for found in hits if found})
    correct = bool(items) and pure and len(items) == count and different == count and "?" not in answer
    form = forms.form_ok(check["form"], answer, count) and len(items) == count
    return Verdict(correct, any(hits), form)
