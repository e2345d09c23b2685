"""Adding and taking away, worked column by column from the right, with the carry written out.

"347+285: 7+5=12, 4+8+1=13, 3+2+1=6. The answer is 632." Every column is an equation that can be checked, and needs
nothing but the table up to 19; the last digits of the columns, read from the left end, are the result. Taking away
borrows in the same place: "415-38: 15-8=7, 11-3-1=7, 4-0-1=3."
"""

from __future__ import annotations

import random
import re

from . import forms
from .arithmetic import THOUSANDS, equations, without_calls
from .example import Example, Verdict
from .splits import all_on_side
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
SMALL_FRAC = 0.3  # of the sums in conversations and prompts: the table up to 20; the rest have two or three digits
_NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen",
                 "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty")
_PLUS = re.compile(r"(?<=\d)\s+(?:plus|and)\s+(?=\d)", re.IGNORECASE)
_MINUS = re.compile(r"(?<=\d)\s+(?:minus|take away|less)\s+(?=\d)", re.IGNORECASE)
_EQUALS = re.compile(r"(\d\s*[+-]\s*\d+)\s+(?:is|are|makes?|leaves?|gives?|equals?)\s+(?=\d)", re.IGNORECASE)
_FROM = re.compile(r"(\d+)\s+(?:taken )?(?:away )?from\s+(\d+)\s*(?:=|is|leaves?|gives?)\s*(\d+)", re.IGNORECASE)


def is_small(a: int, b: int) -> bool:
    """Whether one equation says it all: the table everybody knows by heart."""
    return max(a, b) < 20 and min(a, b) < 10


def columns(a: int, sign: str, b: int) -> list[str]:
    """The working of a + b, or of a - b with a >= b >= 0, an equation a step: one for the table, else one a column.

    >>> columns(347, "+", 285)
    ['7+5=12', '4+8+1=13', '3+2+1=6']
    >>> columns(415, "-", 38)
    ['15-8=7', '11-3-1=7', '4-0-1=3']
    """
    if is_small(a, b):
        return [f"{a}{sign}{b}={a + b if sign == '+' else a - b}"]
    steps, carry = [], 0
    for place in range(len(str(max(a, b)))):
        x, y = a // 10**place % 10, b // 10**place % 10
        carried = f"{sign}{carry}" if carry else ""
        if sign == "+":
            found = x + y + carry
            carry = found // 10
        else:
            x, carry_next = (x + 10, 1) if x < y + carry else (x, 0)
            found, carry = x - y - carry, carry_next
        steps.append(f"{x}{sign}{y}{carried}={found}")
    return steps


def work(a: int, sign: str, b: int) -> str:
    """`columns` as it is written; the sum stands before its columns, so that a story says first what is to be worked out."""
    steps = ", ".join(columns(a, sign, b))
    return f"{steps}." if is_small(a, b) else f"{a}{sign}{b}: {steps}."


def draw_small(rng: random.Random) -> tuple[int, str, int]:
    """A sum of the table up to 20."""
    sign = rng.choice("+-")
    a = rng.randrange(1, 13) if sign == "+" else rng.randrange(3, 17)
    return a, sign, rng.randrange(1, min(a, 10)) if sign == "-" else rng.randrange(1, min(9, 20 - a) + 1)


def draw(rng: random.Random, digits: tuple[int, int], carries: bool | None = None, held: bool = False) -> tuple[int, str, int]:
    """A sum with a first operand of so many digits and a second of so many, on the wanted side of the split.

    carries: whether some column carries or borrows; None: as it comes. The longer number comes first when taking away.
    """
    while True:
        sign = rng.choice("+-")
        a, b = (rng.randrange(10 ** (n - 1), 10**n) for n in digits)
        if sign == "-" and a < b:
            a, b = b, a
        if a != b and all_on_side([(a, b)], held) and carries in (None, carried(a, sign, b)):
            return a, sign, b


def carried(a: int, sign: str, b: int) -> bool:
    return any(step.count(sign) > 1 for step in columns(a, sign, b)) or (sign == "+" and len(str(a + b)) > len(str(max(a, b))))


def taught(rng: random.Random, held: bool = False) -> tuple[int, str, int]:
    """A sum as conversations and prompts have them."""
    if rng.random() < SMALL_FRAC:
        return draw_small(rng)
    a, b = rng.choice(((2, 2), (2, 2), (2, 2), (3, 2), (3, 3), (3, 3)))
    return draw(rng, (a, b) if rng.random() < 0.8 else (b, a), held=held)


def example(rng: random.Random, name: str, thing: str, plain_frac: float = 0.8, held: bool = False) -> Example:
    """name, thing: whose and of what ("apples") the sum is when it is told as a story."""
    a, sign, b = taught(rng, held)
    return make(rng, a, sign, b, name, thing, told=rng.random() < 0.4, plain_frac=plain_frac)


def make(rng: random.Random, a: int, sign: str, b: int, name: str, thing: str, told: bool, plain_frac: float = 1.0) -> Example:
    """plain_frac: how often the form is free; otherwise the number alone is asked for (small sums only)."""
    result = a + b if sign == "+" else a - b
    told = told and min(a, b, result) > 1  # nothing is counted once: "1 apples"
    question = rng.choice((STORIES if told else ASKED)[sign]).format(a=a, b=b, n=name, t=thing)
    form = "number" if is_small(a, b) and rng.random() >= plain_frac else "free"
    ending = f"There are {result} {thing}." if told else f"The answer is {result}."
    answer = str(result) if form == "number" else f"{work(a, sign, b)} {ending}"
    prompt = f"{question} {forms.ask(form, rng)}".strip()
    check = {"form": form, "a": a, "b": b, "sign": sign, "answer": result, "thing": thing if told else None, "steps": columns(a, sign, b)}
    return Example("sum", prompt, answer, check, f"Question: {question}\nAnswer:", None,
                   (form, "told" if told else "bare", "small" if is_small(a, b) else "columns"))


def verify(check: dict, answer: str) -> Verdict:
    """Right: every equation is true, calls of a calculator too, and the last sentence with a number holds the result and no
    other number apart from the operands inside an equation; a call is no sentence."""
    text = figures(answer)
    stated = equations(text)
    numbered = [part for part in sentences(without_calls(text)) if re.search(r"\d", part)]
    correct = False
    if numbered and all(true for _, true in stated) and "?" not in answer:
        last = re.sub(r"[\d+\-*/() ]*\d[\d+\-*/() ]*=(?=\s*\d)", "", numbered[-1])
        correct = re.findall(r"\d+", last) == [str(check["answer"])] and not re.search(r"\bnot\b|n['’]t\b", last)
    return Verdict(correct, bool(numbered), forms.form_ok(check["form"], answer))


def figures(answer: str) -> str:
    """The answer with number words and worded sums in figures, thousands without commas: "Seven and five make twelve" -> "7+5=12"."""
    text = re.sub(r"[A-Za-z]+", lambda m: _digit(m.group()), THOUSANDS.sub("", answer))
    text = _FROM.sub(r"\2-\1=\3", text)
    return _EQUALS.sub(r"\1=", _MINUS.sub("-", _PLUS.sub("+", text)))


def _digit(word: str) -> str:
    return str(_NUMBER_WORDS.index(word.lower())) if word.lower() in _NUMBER_WORDS and word.lower() != "one" else word
