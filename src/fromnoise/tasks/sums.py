"""Adding and taking away small numbers, worked step by step."""

from __future__ import annotations

import random
import re

from . import forms
from .example import Example, Verdict
from .text import sentences

ASKED = {
    "+": ("What is {a} + {b}?", "Work out {a} + {b}.", "Add {a} and {b}.", "How much is {a} plus {b}?", "What do {a} and {b} make?",
          "Please add up {a} and {b}."),
    "-": ("What is {a} - {b}?", "Work out {a} - {b}.", "Take {b} away from {a}.", "How much is {a} minus {b}?",
          "What is left when you take {b} from {a}?", "Subtract {b} from {a}."),
}
STORIES = {
    "+": ("{n} has {a} {t} and gets {b} more. How many {t} does {n} have now?",
          "There are {a} {t} on the table and {b} in the bag. How many {t} are there?",
          "{n} picked {a} {t} on Monday and {b} on Tuesday. How many {t} is that?",
          "{n} had {a} {t}. A friend brought {b} more. How many {t} are there now?"),
    "-": ("{n} has {a} {t} and gives away {b}. How many {t} are left?",
          "There were {a} {t} in the shop and {b} were sold. How many {t} are left?",
          "{n} had {a} {t} and lost {b}. How many {t} does {n} have now?",
          "{n} carried {a} {t} home but {b} fell out. How many {t} are left?"),
}
_NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen",
                 "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty")
_EQUATION = re.compile(
    r"(\d+)\s*(\+|-|plus|and|minus|take away|less)\s*(\d+)\s*(?:=|is|are|makes?|leaves?|gives?|equals?)\s*(\d+)", re.IGNORECASE)
_FROM = re.compile(r"(\d+)\s+(?:taken )?(?:away )?from\s+(\d+)\s*(?:=|is|leaves?|gives?)\s*(\d+)", re.IGNORECASE)


def work(a: int, b: int, sign: str) -> str:
    """The working: one equation for small numbers; tens and ones apart where both have two digits."""
    result = a + b if sign == "+" else a - b
    if a < 20 or b < 10:
        return f"{a} {sign} {b} = {result}."
    tens = a // 10 * 10 + (b // 10 * 10 if sign == "+" else -(b // 10 * 10))
    return f"{a // 10 * 10} {sign} {b // 10 * 10} = {tens}. {a % 10} {sign} {b % 10} = {result - tens}. So {a} {sign} {b} = {result}."


def draw(rng: random.Random) -> tuple[int, int, str]:
    """Small numbers; four in five stay within the table up to 20, the rest add tens and ones without a carry."""
    sign = rng.choice("+-")
    if rng.random() < 0.8:
        if sign == "+":
            a = rng.randrange(1, 13)
            return a, rng.randrange(1, min(10, 20 - a) + 1), sign
        a = rng.randrange(3, 17)
        return a, rng.randrange(1, min(a, 10)), sign
    a1, b1 = sorted((rng.randrange(2, 7), rng.randrange(1, 4)), reverse=True)
    a0, b0 = rng.randrange(0, 6), rng.randrange(0, 5)
    if sign == "-":
        a1, a0, b0 = a1 + 1, max(a0, b0), min(a0, b0)
    return a1 * 10 + a0, b1 * 10 + b0, sign


def example(rng: random.Random, name: str, thing: str, plain_frac: float = 0.8) -> Example:
    """name, thing: whose and of what ("apples") the sum is when it is told as a story."""
    a, b, sign = draw(rng)
    result = a + b if sign == "+" else a - b
    told = rng.random() < 0.4 and a < 20 and min(a, b, result) > 1  # nothing is counted once: "1 apples"
    question = rng.choice((STORIES if told else ASKED)[sign]).format(a=a, b=b, n=name, t=thing)
    form = "free" if rng.random() < plain_frac else "number"
    working = work(a, b, sign)
    ending = f"There are {result} {thing}." if told else f"The answer is {result}."
    answer = str(result) if form == "number" else f"{working} {ending}"
    prompt = f"{question} {forms.ask(form, rng)}".strip()
    check = {"form": form, "a": a, "b": b, "sign": sign, "answer": result, "thing": thing if told else None}
    return Example("sum", prompt, answer, check, f"Question: {question}\nAnswer:", None,
                   (form, "told" if told else "bare", "tens" if a >= 20 else "small"))


def verify(check: dict, answer: str) -> Verdict:
    """Right: every equation is true, and the last sentence with a number holds the result and no other number apart
    from the operands inside an equation."""
    text = re.sub(r"[A-Za-z]+", lambda m: _digit(m.group()), answer)
    equations = [(int(x), op, int(y), int(z)) for x, op, y, z in _EQUATION.findall(text)]
    equations += [(int(y), "-", int(x), int(z)) for x, y, z in _FROM.findall(text)]
    true = all((x + y if op.lower() in ("+", "plus", "and") else x - y) == z for x, op, y, z in equations)
    numbered = [part for part in sentences(text) if re.search(r"\d", part)]
    correct = False
    if numbered and true and "?" not in answer:
        last = _FROM.sub(r"\3", _EQUATION.sub(r"\4", numbered[-1]))
        correct = re.findall(r"\d+", last) == [str(check["answer"])] and not re.search(r"\bnot\b|n['’]t\b", last)
    return Verdict(correct, bool(numbered), forms.form_ok(check["form"], answer))


def _digit(word: str) -> str:
    return str(_NUMBER_WORDS.index(word.lower())) if word.lower() in _NUMBER_WORDS and word.lower() != "one" else word
