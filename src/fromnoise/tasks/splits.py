"""Which problems are kept for evaluation: a function of the problem itself, so that nobody has to remember it.

Documents, conversations, prompts and the problems that `reason` practises on all draw from one side, evaluation from
the other. The same numbers are held out under every seed, so a model of one run can be measured on the world of another.
"""

from __future__ import annotations

from hashlib import blake2b

HELD_OUT_IN = 8  # one in so many


def held_out(key: str) -> bool:
    """Whether the problem with this key is for evaluation alone."""
    return int.from_bytes(blake2b(key.encode(), digest_size=8).digest()) % HELD_OUT_IN == 0


def held_out_pair(a: int, b: int) -> bool:
    """Whether two operands are kept for evaluation, in either order, whatever is done with them.

    With an operand below ten it is the table that everybody learns, and every column of a longer sum: never held out.
    """
    low, high = sorted((a, b))
    return low >= 10 and held_out(f"{low} {high}")


def all_on_side(pairs, held: bool) -> bool:
    """Whether all pairs of operands that the table does not cover lie on the wanted side; without any, both sides may have it."""
    return all(held_out_pair(a, b) == held for a, b in pairs if min(a, b) >= 10)
