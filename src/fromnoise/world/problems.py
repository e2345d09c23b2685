"""The world's problems to reason about: the levels of `tasks.problems`, told of the world's people and things."""

from __future__ import annotations

import random
from collections.abc import Sequence

from ..tasks.example import Example
from ..tasks.problems import BY_NUMBER
from . import lexicon as lx
from . import passages


def problem(rng: random.Random, level: int, held: bool = False) -> Example:
    """One problem of a level. held: from the side that nothing trains on."""
    return BY_NUMBER[level].make(rng, rng.choice(lx.FIRST_NAMES), rng.choice(passages.COUNTED), held)


def held_out(levels: Sequence[int], count: int, seed: int, purpose: str) -> list[dict]:
    """`count` different problems of each level that nothing trains on, as records: {"id", "level", "kind", "prompt", "check"}."""
    records = []
    for level in levels:
        rng, seen = random.Random(f"{seed}/{purpose}/{level}"), set()
        for _ in range(50 * count):  # a level may hold fewer than were asked for
            example = problem(rng, level, held=True)
            if example.prompt in seen:
                continue
            seen.add(example.prompt)
            records.append({"id": f"{purpose}-{level}-{len(seen):04d}", "level": level, "kind": example.kind, "prompt": example.prompt, "check": example.check})
            if len(seen) == count:
                break
    return records
