"""Which level a problem is drawn from: more often where a policy sometimes succeeds, seldom where it always or never does."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

MEMORY = 0.7  # weight of what is known when a new success rate comes in: about the last three iterations count
LEAST_WEIGHT = 0.1  # relative to a level solved half the time: no level is given up, none is never looked at again


class Curriculum:
    """Success rate by level, forgetting, and the draw that follows from it. Its whole state is `rates`."""

    def __init__(self, levels: Sequence[int], rates: Mapping[str, float] | None = None):
        self.levels = tuple(levels)
        self.rates: dict[int, float] = {int(level): rate for level, rate in (rates or {}).items()}

    def weight(self, level: int) -> float:
        """4 p (1 - p), the variance of a success, relative to its most: what a group of answers can teach (DAPO drops
        groups without variance after paying for them; this avoids drawing them). Unknown levels count as half solved."""
        rate = self.rates.get(level, 0.5)
        return max(LEAST_WEIGHT, 4.0 * rate * (1.0 - rate))

    def draw(self, rng: random.Random, count: int) -> list[int]:
        return rng.choices(self.levels, weights=[self.weight(level) for level in self.levels], k=count)

    def learn(self, levels: Sequence[int], successes: Sequence[float]) -> None:
        """levels, successes (P,): the share of right answers to each problem just tried."""
        for level in self.levels:
            seen = [success for at, success in zip(levels, successes, strict=True) if at == level]
            if seen:
                now = sum(seen) / len(seen)
                self.rates[level] = now if level not in self.rates else MEMORY * self.rates[level] + (1 - MEMORY) * now
