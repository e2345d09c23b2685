"""Small puzzles with one right answer: sorting, the largest and smallest, writing backwards, counting a letter.

Largest and smallest are worked: a running comparison, each step of which can be checked. The others are answered at
once. How hard one is is a number: how many things it is about.
"""

from __future__ import annotations

import random
import re

from . import forms
from .example import Example, Verdict
from .splits import held_out

ASKED = {
    "sort": ("Sort these numbers: {i}.", "Put {i} in order, smallest first.", "Write {i} from small to large."),
    "largest": ("Which is the largest of {i}?", "What is the greatest of these numbers: {i}?", "Find the largest number: {i}."),
    "smallest": ("Which is the smallest of {i}?", "What is the least of these numbers: {i}?", "Find the smallest number: {i}."),
    "backwards": ("Write {i} backwards.", "Turn the letters {i} round.", "What is {i} in reverse order?"),
    "count": ("How many times does {x} stand in {i}?", "Count the letter {x} in {i}.", "How often do you see {x} in {i}?"),
}
KINDS = tuple(ASKED)
LETTERS = "abcdefghkmnprstuvxz"
TAUGHT_SIZES = (3, 4, 5)  # of the puzzles in conversations


def example(rng: random.Random, held: bool = False) -> Example:
    """A puzzle as conversations have them."""
    return make(rng, rng.choice(KINDS), rng.choice(TAUGHT_SIZES), held)


def make(rng: random.Random, kind: str, size: int, held: bool = False) -> Example:
    """A puzzle about `size` things, on the wanted side of the split."""
    while True:
        items, what = _items(rng, kind, size)
        if held_out(" ".join((kind, what, *items))) == held:
            break
    steps, answer = solve(kind, items, what)
    shown = ", ".join(items) if kind in ("sort", "largest", "smallest") else " ".join(items)
    question = rng.choice(ASKED[kind]).format(i=shown, x=what)
    working = f"{', '.join(steps)}. The answer is {answer}." if steps else f"The answer is {answer}."
    check = {"form": "free", "puzzle": kind, "items": items, "what": what, "answer": answer, "steps": steps}
    return Example("puzzle", question, working, check, f"Question: {question}\nAnswer:", None, (kind, f"size {size}"))


def _items(rng: random.Random, kind: str, size: int) -> tuple[list[str], str]:
    if kind == "sort":
        return [str(n) for n in rng.sample(range(1, 100), size)], ""
    if kind in ("largest", "smallest"):
        return [str(n) for n in rng.sample(range(10, 1000), size)], ""
    if kind == "backwards":
        return rng.sample(LETTERS, size), ""
    few = rng.sample(LETTERS, 3)
    return [rng.choice(few) for _ in range(size)], few[0]


def solve(kind: str, items: list[str], what: str) -> tuple[list[str], str]:
    """(steps, answer)."""
    if kind == "sort":
        return [], ", ".join(sorted(items, key=int))
    if kind == "backwards":
        return [], " ".join(reversed(items))
    if kind == "count":
        return [], str(items.count(what))
    steps, best = [], items[0]
    for item in items[1:]:
        low, high = sorted((best, item), key=int)
        steps.append(f"{low}<{high}")
        best = high if kind == "largest" else low
    return steps, best


def comparisons(text: str) -> list[tuple[str, bool]]:
    """Every comparison of two numbers that the text states, and whether it is true."""
    found = re.findall(r"(?<![\d.])(\d{1,15})\s*([<>])\s*(\d{1,15})(?![\d.]*\d)", text)
    return [(f"{a}{sign}{b}", int(a) < int(b) if sign == "<" else int(a) > int(b)) for a, sign, b in found]


def verify(check: dict, answer: str) -> Verdict:
    """Right: every comparison is true and what stands after the last colon or "is" (or all of it) is the answer."""
    text = answer.strip().rstrip(".!")
    last = re.split(r"\bis\b:?|:|\. ", text)[-1].strip().replace(" and ", ", ")
    wanted = check["answer"]
    pieces = r"\d+" if check["puzzle"] in ("sort", "largest", "smallest", "count") else r"[a-z]+"
    said = re.findall(pieces, last)
    same = said == re.findall(pieces, wanted) and len(re.sub(pieces, "", last).strip(" ,\"'")) == 0
    correct = same and all(true for _, true in comparisons(text)) and "?" not in answer
    return Verdict(correct, bool(said), forms.form_ok(check["form"], answer))
