"""Arithmetic as text: working out an expression, and checking every equation that a text states.

`calculate` is a recursive-descent parser for digits, a decimal point, + - * / and brackets. It holds exact fractions
and knows nothing else: no names, no calls, no powers, so there is nothing in it that could run a program or make a
number explode. Length, depth, digits and magnitude are limited, and what is beyond a limit is an error, not a wait.
"""

from __future__ import annotations

import re
from fractions import Fraction

MAX_CHARS = 64
MAX_DEPTH = 8
MAX_VALUE = 10**12  # of every number on the way; with MAX_CHARS it bounds denominators too
MAX_DECIMALS = 4  # a result that never ends is cut here

_FIGURE = r"(?:\d+(?:\.\d+)?|(?<![\w.])\.\d+)"  # ".5"; but "the end.5" is a 5
_TOKEN = re.compile(rf"{_FIGURE}|[()+\-*/]", re.ASCII)
_SIGNS = str.maketrans({"×": "*", "·": "*", "÷": "/", "−": "-", "–": "-", "$": None, "€": None, "£": None})
_RUN = re.compile(rf"(?:{_FIGURE}|[()+*/=]|(?<![A-Za-z])-|[ \t](?=[.\d()+\-*/=]))+", re.ASCII)
_TIMES = re.compile(r"(?<![A-Za-z])[xX](?=[ \t]*[.\d(])|(?<=[\d)])(?=\()", re.ASCII)  # "2 x 3", "2(3+4)"
_REMARK = re.compile(r"\(([^()]*=[^()]*)\)")  # "12 (for 5+7=12) apples"
_BEGUN = re.compile(r"(?:\^|√|\\(?:times|cdot|div|sqrt)|(?:half|third|quarter|percent|%) of)$")  # what stands before the rest of a sum: "2^3 + 1 = 9"
_BULLET = re.compile(r"^[ \t]*[-*+][ \t]+", re.MULTILINE)  # of a list; "-5+3" is a sum
_OPENED = re.compile(r"\([^()]*$")  # the beginning of one: "12 (15 minutes)"
_CALL = re.compile(r"<<([^<>]*)>>")
THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))", re.ASCII)


class NotArithmetic(ValueError):
    """Text that is no expression within the limits; the message says why."""


def calculate(text: str) -> Fraction:
    """The value of an expression: `12*(7-2)/4` is 15. Raises NotArithmetic."""
    if len(text) > MAX_CHARS:
        raise NotArithmetic(f"longer than {MAX_CHARS} characters")
    bare = text.translate(_SIGNS).replace(" ", "")
    tokens = _TOKEN.findall(bare)
    if not tokens or "".join(tokens) != bare:
        raise NotArithmetic("only digits, a decimal point, + - * / and brackets are understood")
    value, at = _sum(tokens, 0, 0)
    if at != len(tokens):
        raise NotArithmetic(f"{tokens[at]!r} is out of place")
    return value


def _sum(tokens: list[str], at: int, depth: int) -> tuple[Fraction, int]:
    value, at = _product(tokens, at, depth)
    while at < len(tokens) and tokens[at] in "+-":
        sign = tokens[at]
        term, at = _product(tokens, at + 1, depth)
        value = _limited(value + term if sign == "+" else value - term)
    return value, at


def _product(tokens: list[str], at: int, depth: int) -> tuple[Fraction, int]:
    value, at = _atom(tokens, at, depth)
    while at < len(tokens) and tokens[at] in "*/":
        sign = tokens[at]
        factor, at = _atom(tokens, at + 1, depth)
        if sign == "/" and factor == 0:
            raise NotArithmetic("division by zero")
        value = _limited(value * factor if sign == "*" else value / factor)
    return value, at


def _atom(tokens: list[str], at: int, depth: int) -> tuple[Fraction, int]:
    """A number, a bracket, or one of them with a minus before it."""
    if depth > MAX_DEPTH:
        raise NotArithmetic(f"nested deeper than {MAX_DEPTH}")
    if at >= len(tokens):
        raise NotArithmetic("it ends where a number should stand")
    token = tokens[at]
    if token == "-":
        value, at = _atom(tokens, at + 1, depth + 1)
        return -value, at
    if token == "(":
        value, at = _sum(tokens, at + 1, depth + 1)
        if at >= len(tokens) or tokens[at] != ")":
            raise NotArithmetic("a bracket is not closed")
        return value, at + 1
    if token[-1] in "()+-*/":
        raise NotArithmetic(f"{token!r} stands where a number should")
    return _limited(Fraction(token)), at + 1


def _limited(value: Fraction) -> Fraction:
    if abs(value) > MAX_VALUE:
        raise NotArithmetic(f"beyond {MAX_VALUE:.0e}")
    return value


def write(value: Fraction) -> str:
    """A value as a person writes it: whole numbers bare, others with at most MAX_DECIMALS decimals."""
    if value.denominator == 1:
        return str(value.numerator)
    return f"{float(value):.{MAX_DECIMALS}f}".rstrip("0").rstrip(".")


def without_calls(text: str) -> str:
    """The text as it reads without its calls of the calculator: "48/2 = <<48/2=24>>24" -> "48/2 = 24"."""
    return _CALL.sub("", text)


def num_worked(text: str) -> int:
    """How many sums a worked answer does: its calls of the calculator, where it has none the equations that it states."""
    return len(_CALL.findall(text)) or len(equations(text))


def equations(text: str) -> list[tuple[str, bool]]:
    """Every equation that the text states in figures, as written, and whether it is true.

    A chain "3+4=7=7" is one equation. A side that cannot be worked out makes it false. A rounded result is true when
    it is the value rounded to the decimals given; one in percent may be a hundredth of what it says. A run without "=" states
    nothing, nor does the end of a sum that begins in words, letters or what is not worked out here ("of 50 = 20", "6Y - 35 = 37",
    "2^3 + 1 = 9"): it cannot be checked.
    """
    found = []
    calls = _CALL.findall(text)  # "48/2 = <<48/2=24>>24" states the same thing twice
    plain = THOUSANDS.sub("", "\n".join([without_calls(text), *calls]).translate(_SIGNS))
    plain = _REMARK.sub(r"\n\1\n", _TIMES.sub("*", _BULLET.sub("", plain)))
    for match in _RUN.finditer(plain):
        run = _OPENED.sub("", match.group().strip()).rstrip("+-*/ \t")  # the dash of "30+30 = 60-minute" is none of its signs
        if "=" not in run or "**" in run or run.startswith(("=", "+", "*", "/", ")", "- ")) or not set(run) & set("+-*/"):
            continue
        if _BEGUN.search(plain[max(match.start() - 12, 0) : match.start()]):
            continue
        found.append((run, _holds(run) or (plain[match.end() : match.end() + 1] == "%" and _holds(f"{run}/100"))))
    return found


def _holds(run: str) -> bool:
    sides = [side.strip() for side in run.split("=")]
    try:
        values = [calculate(side) for side in sides]
    except NotArithmetic:
        return False
    return all(_same(value, values[0], side) for value, side in zip(values[1:], sides[1:], strict=True))


def _same(stated: Fraction, true: Fraction, written: str) -> bool:
    if stated == true or written == write(true):  # the calculator's own cut: 33.33333*3=100
        return True
    decimals = re.fullmatch(r"-?\d*\.(\d+)", written)
    return decimals is not None and abs(stated - true) <= Fraction(1, 2 * 10 ** len(decimals.group(1)))


def normal_number(text: str) -> str | None:
    """One number in one spelling: "$1,200.00" and "1200" are "1200", ".5" is "0.5"; None for what is no number."""
    bare = THOUSANDS.sub("", text.strip().translate(_SIGNS)).strip().rstrip(".%").replace(" ", "")
    match = re.fullmatch(r"([+-]?)(?=\.?\d)(\d{0,18})(?:\.(\d{1,12}))?", bare, re.ASCII)
    if match is None:
        return None
    sign, whole, decimals = match.groups()
    whole, decimals = whole.lstrip("0") or "0", (decimals or "").rstrip("0")
    number = whole + (f".{decimals}" if decimals else "")
    return f"-{number}" if sign == "-" and number != "0" else number
