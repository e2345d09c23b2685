"""Sums worked step by step, as text; documents and conversations both use this form."""

from __future__ import annotations


def worked_sum(a: int, op: str, b: int) -> tuple[str, int]:
    """Steps and answer of a + b, a - b (a >= b) or a * b (b < 13) for whole numbers from 0 to 9,999.

    The text ends with "The answer is N."; e.g. (23, "+", 45) -> "20 + 40 = 60. 3 + 5 = 8. 60 + 8 = 68. The answer is 68."
    """
    if op == "*":
        return _product(a, b)
    sign = 1 if op == "+" else -1
    if a < 10 or b < 10:
        total = a + sign * b
        return f"{a} {op} {b} = {total}. The answer is {total}.", total
    steps, total, unit = [], 0, 1
    places = []
    while unit <= max(a, b):
        x, y = a // unit % 10 * unit, b // unit % 10 * unit
        places.append((x, y))
        unit *= 10
    if sign < 0 and any(x < y for x, y in places):  # taking away place by place would borrow: count down in two steps
        tens, ones = b // 10 * 10, b % 10
        steps.append(f"{a} - {tens} = {a - tens}.")
        if ones:
            steps.append(f"{a - tens} - {ones} = {a - b}.")
        return " ".join(steps) + f" The answer is {a - b}.", a - b
    for x, y in reversed(places):
        if x or y:
            steps.append(f"{x} {op} {y} = {x + sign * y}.")
            before, total = total, total + x + sign * y
            if before:
                steps.append(f"{before} + {x + sign * y} = {total}.")
    return " ".join(steps) + f" The answer is {total}.", total


def _product(a: int, b: int) -> tuple[str, int]:
    if a < 10:
        return f"{a} * {b} = {a * b}. The answer is {a * b}.", a * b
    unit = 10 ** (len(str(a)) - 1)
    head, rest = a // unit * unit, a % unit
    steps = [f"{head} * {b} = {head * b}."]
    if rest:
        steps.append(f"{rest} * {b} = {rest * b}.")
        steps.append(f"{head * b} + {rest * b} = {a * b}.")
    return " ".join(steps) + f" The answer is {a * b}.", a * b
