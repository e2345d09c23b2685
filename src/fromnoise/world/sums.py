"""Sums worked step by step, as the documents tell them."""

from __future__ import annotations


def worked(a: int, sign: str, b: int, ending: str = "The answer is {n}.") -> tuple[str, int]:
    """Steps and answer of a + b or a - b (a >= b >= 0).

    Small numbers take one equation, two-digit ones without a carry go by tens and ones, all others in two steps. `ending` says the result:
    "12 + 7 = 19. The answer is 19."; "20 + 40 = 60. 3 + 5 = 8. So 23 + 45 = 68. The answer is 68.".
    """
    step = 1 if sign == "+" else -1
    total = a + step * b
    tens, ones = b // 10 * 10, b % 10
    if a < 20 or b < 10:
        steps = f"{a} {sign} {b} = {total}."
    elif a < 100 and b < 100 and (a % 10 + ones < 10 if step > 0 else a % 10 >= ones):
        steps = (f"{a // 10 * 10} {sign} {tens} = {a // 10 * 10 + step * tens}. {a % 10} {sign} {ones} = {a % 10 + step * ones}. "
                 f"So {a} {sign} {b} = {total}.")
    elif ones:
        steps = f"{a} {sign} {tens} = {a + step * tens}. {a + step * tens} {sign} {ones} = {total}. So {a} {sign} {b} = {total}."
    else:
        steps = f"{a} {sign} {b} = {total}."
    return f"{steps} {ending.format(n=total)}".rstrip(), total
