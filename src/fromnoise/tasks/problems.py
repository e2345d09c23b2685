"""Problems to reason about, one interface for all: a level, a prompt, a verifier, and what its answer earns.

The world's levels climb from two digits without a carry to several steps told as a story; problems from a file (GSM8K,
or any jsonl with question and answer) are three levels more. `grade` tells apart what learning needs apart: right or
wrong, how far the working is right, and whether the answer has the form.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from . import puzzles, sums
from .arithmetic import equations, normal_number, num_worked, write
from .example import Example, Verdict
from .splits import all_on_side

_NUMBER = re.compile(r"[-\u2212]?\$?(?:\d[\d,]*(?:\.\d+)?|(?<![\w.])\.\d+)")
_MARKED = re.compile(r"####\s*([^\n]+)")
_BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{")
_PARTED = re.compile(r"(?:\d(?: ?[/^] ?|:)|\{)$")  # before the rest of 3/4, 12:30, 10^3 or \frac{3}{4}
_NAMED = re.compile(r"\banswer(?: is\b:?|:)", re.IGNORECASE)
_QUANTITY = re.compile(r"[-\u2212+$€£(]*(?:\d[\d,]*)?(?:\.?\d+)\D*")  # a number with its unit behind it: "5km", "$5", "7%."
_CHOICE = re.compile(r"\(?([a-z])\)")  # of several answers that are lettered
_EDGES = " \t\r\n.,;:!\"'“”‘’"  # no bracket: [1, 2) and (1, 2] are two answers; no "?": a question answers nothing
MAX_TEXT_WORDS = 5  # of an answer that is no number; "short" as in Natural Questions' open form (Lee et al. 2019, arXiv 1906.00300)


@dataclass(frozen=True, slots=True)
class Grade:
    correct: bool  # the answer is right and no stated step is false
    steps: float  # 0..1: how much of the working is right, from the beginning on
    form_ok: bool  # an answer can be found where one is expected, and the turn is ended
    num_false: int  # stated equations and comparisons that are false
    right_steps: tuple[bool, ...] = ()  # for each step of a canonical working, whether the step stated in its place is it


@dataclass(frozen=True, slots=True)
class Level:
    number: int
    name: str
    make: Callable[[random.Random, str, str, bool], Example]  # (rng, a name, a thing, held out?)


STORY_STEPS = (  # (told, sign)
    ("Then {n} gets {b} more.", "+"), ("A friend brings {b} more.", "+"), ("Then {n} finds {b} more.", "+"),
    ("Then {n} gives away {b}.", "-"), ("Of these {b} are sold.", "-"), ("Then {b} are lost.", "-"),
)


def story(rng: random.Random, name: str, thing: str, num_steps: int, held: bool) -> Example:
    """A number of things that changes several times; each change is a sum of its own, worked in columns."""
    while True:
        value = rng.randrange(20, 70)
        changes, pairs, at = [], [], value
        for told, sign in (rng.choice(STORY_STEPS) for _ in range(num_steps)):
            b = rng.randrange(10, 50) if sign == "+" else rng.randrange(10, max(11, min(50, at - 1)))
            changes.append((told, sign, b))
            pairs.append((at, b))
            at = at + b if sign == "+" else at - b
            if at < 10:
                break
        if len(changes) == num_steps and at >= 10 and all_on_side(pairs, held):
            break
    told = " ".join(part.format(n=name, b=b) for part, _, b in changes)
    question = f"{name} has {value} {thing}. {told} How many {thing} are there now?"
    steps = [step for (_, sign, b), (a, _) in zip(changes, pairs, strict=True) for step in sums.columns(a, sign, b)]
    working = " ".join(sums.work(a, sign, b) for (_, sign, b), (a, _) in zip(changes, pairs, strict=True))
    check = {"form": "free", "answer": at, "thing": thing, "steps": steps, "operands": pairs}
    return Example("sum", question, f"{working} There are {at} {thing}.", check, f"Question: {question}\nAnswer:", None, ("free", "told", "story"))


def _sum(digits: Sequence[tuple[int, int]], carries: bool | None, told: bool):
    def make(rng: random.Random, name: str, thing: str, held: bool) -> Example:
        return sums.make(rng, *sums.draw(rng, rng.choice(digits), carries, held), name, thing, told)

    return make


def _puzzle(sizes: Sequence[int]):
    return lambda rng, name, thing, held: puzzles.make(rng, rng.choice(puzzles.KINDS), rng.choice(sizes), held)


def _story(num_steps: int):
    return lambda rng, name, thing, held: story(rng, name, thing, num_steps, held)


THREE = ((3, 2), (2, 3), (3, 3), (3, 3))
LEVELS = (
    Level(1, "two digits, nothing carried", _sum(((2, 2),), False, False)),
    Level(2, "two digits, carried", _sum(((2, 2),), True, False)),
    Level(3, "two digits, told as a story", _sum(((2, 2),), None, True)),
    Level(4, "three digits", _sum(THREE, None, False)),
    Level(5, "three digits, told as a story", _sum(THREE, None, True)),
    Level(6, "puzzles of three to five", _puzzle((3, 4, 5))),
    Level(7, "puzzles of six", _puzzle((6,))),
    Level(8, "two steps", _story(2)),
    Level(9, "four digits", _sum(((4, 3), (3, 4), (4, 4)), None, False)),
    Level(10, "puzzles of eight", _puzzle((8,))),
    Level(11, "three steps", _story(3)),
)
BY_NUMBER = {level.number: level for level in LEVELS}
PLAIN_SUMS = (1, 2, 4)  # levels that are two- and three-digit sums and nothing else
FILE_LEVELS = {101: "the file's easiest third", 102: "the file's middle third", 103: "the file's hardest third"}


def file_levels(problems: Sequence[Example]) -> list[int]:
    """The level of each problem of a file: thirds by how many sums its answer works out, then by the length of its question."""
    order = sorted(range(len(problems)), key=lambda at: (num_worked(problems[at].answer), len(problems[at].prompt), problems[at].prompt))
    levels, numbers = [0] * len(problems), tuple(FILE_LEVELS)
    for place, at in enumerate(order):
        levels[at] = numbers[place * len(numbers) // len(order)]
    return levels


def from_file(question: str, answer: str) -> Example | None:
    """A problem read from a file, with its final answer: a number, or where there is none a few words. None when there is neither."""
    number, text = final_number(answer), final_text(answer)
    short = 1 <= len(text.split()) <= MAX_TEXT_WORDS
    is_text = number is None or (short and "=" not in text and _is_more_than_a_number(text))
    if is_text and not short:
        return None
    check = {"form": "free", "answer": text if is_text else number, "is_text": is_text, "steps": []}
    return Example("problem", question, answer, check, f"Question: {question}\nAnswer:")


def _is_more_than_a_number(text: str) -> bool:
    """Of 1/2, 12:30, H2O, "3/4 cup", "2, 3" or "1 hour 20 minutes" a single number is only a part: other answers have the same."""
    figures = [word for word in (word.strip(_EDGES) for word in text.split()) if any(map(str.isdigit, word))]
    return len(figures) != 1 or _QUANTITY.fullmatch(figures[0]) is None


def _marked(text: str) -> str | None:
    """What is marked as the final answer: behind the last `####` (GSM8K), else in the last `\\boxed{...}` (MATH), whatever brackets are in it."""
    if marked := _MARKED.findall(text):
        return marked[-1]
    for begin in reversed([match.end() for match in _BOXED.finditer(text)]):
        depth = 1
        for at in range(begin, len(text)):
            depth += {"{": 1, "}": -1}.get(text[at], 0)
            if depth == 0:
                return text[begin:at]
    return None


def final_text(text: str) -> str:
    """What an answer ends on, in words: what is marked (`####`, `\\boxed{}`), else what stands after the last "answer is", else all of it.
    Without capitals, surrounding punctuation, the article before it and the brackets of a single letter: "(B)" and "B)" are "b"."""
    marked = _marked(text)
    words = (marked if marked is not None else _NAMED.split(text)[-1]).casefold().strip(_EDGES).split()
    said = " ".join(words[1:] if len(words) > 1 and words[0] in ("a", "an", "the") else words).strip(_EDGES)
    letter = _CHOICE.fullmatch(said)
    return letter.group(1) if letter else said


def final_number(text: str) -> str | None:
    """The number that an answer ends on: the one that is marked (`####`, `\\boxed{}`), else the last one named. Normalised; None where
    it is only a part of what stands there, as of 3/4."""
    marked = _marked(text)
    if marked is not None:
        result = marked.rpartition("=")[2] if marked.count("=") == 1 else marked  # "x = 5"; of "x = 1, y = 2" no number is all
        numbers = [] if _is_more_than_a_number(result) else _NUMBER.findall(result)
        return normal_number(numbers[0]) if numbers else None
    *_, last = [None, *_NUMBER.finditer(text)]
    if last is None or _PARTED.search(text[max(last.start() - 4, 0) : last.start()]):
        return None
    return normal_number(last.group().rstrip(","))


def same_number(said: str, wanted: str) -> bool:
    """Whether two normalised numbers are one; a result that never ends (0.6666666667) may be cut where the calculator cuts it."""
    cut = write(Fraction(wanted))
    return said == wanted or (said == cut and cut.strip("-") != "0")


def verify(kind: str, check: dict, answer: str) -> Verdict:
    """The verdict on an answer to a problem of this kind."""
    if kind == "puzzle":
        return puzzles.verify(check, answer)
    if kind == "problem":
        true = all(right for _, right in equations(answer))
        if check["is_text"]:
            said = final_text(answer)
            return Verdict(said == check["answer"] and true, bool(said), 1 <= len(said.split()) <= MAX_TEXT_WORDS)
        number = final_number(answer)
        return Verdict(number is not None and same_number(number, check["answer"]) and true, number is not None, number is not None)
    return sums.verify(check, answer)


def grade(kind: str, check: dict, answer: str, stopped: bool) -> Grade:
    """What an answer earns. An answer that never ended is wrong and formless, whatever it says.

    Steps: where the task has a canonical working, the share of its steps that the answer states, in order, before the
    first that differs; stating other truths ("1+1=2") earns nothing. Elsewhere the share of stated equations that are
    true, 1 where none is stated: there only a false one can cost.
    """
    verdict = verify(kind, check, answer)
    stated = puzzles.comparisons(answer) if kind == "puzzle" else equations(sums.figures(answer) if kind == "sum" else answer)
    num_false = sum(not true for _, true in stated)
    wanted, right_steps = check.get("steps") or [], ()
    if wanted:
        said = [text.replace(" ", "") for text, _ in stated]
        right_steps = tuple(i < len(said) and said[i] == step for i, step in enumerate(wanted))
        steps = (right_steps.index(False) if False in right_steps else len(wanted)) / len(wanted)
    elif kind == "problem":
        steps = 1.0 - num_false / max(len(stated), 1)
    else:
        steps = float(bool(verdict.correct))
    return Grade(bool(verdict.correct) and stopped, steps, bool(verdict.relevant and verdict.form_ok) and stopped, num_false, right_steps)


def with_calls(problem: Example) -> str:
    """The worked answer with its sums done by the calculator, `<<347+285=632>>`; a file's answers that hold calls already stay
    as they are."""
    if problem.kind != "sum":
        return problem.answer
    pairs = problem.check.get("operands")
    if pairs is None:
        call = f"{problem.check['a']}{problem.check['sign']}{problem.check['b']}"
        calls = f"<<{call}={problem.check['answer']}>>"
    else:
        totals = [a for a, _ in pairs[1:]] + [problem.check["answer"]]
        calls = " ".join(f"<<{a}{'+' if total > a else '-'}{b}={total}>>" for (a, b), total in zip(pairs, totals, strict=True))
    thing = problem.check.get("thing")
    return f"{calls} There are {problem.check['answer']} {thing}." if thing else f"{calls} The answer is {problem.check['answer']}."
