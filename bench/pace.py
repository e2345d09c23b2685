"""How a side of a comparison is timed: it sets itself up, warms up, and then does one measurement each time it is told to.

Both sides of a row live at the same time and are told in turn, so that whatever the machine is doing meets both. A side
that waits blocks on its standard input and costs nothing. Standard library only: peers run in an environment of their own.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable

# What a library prints must not mix with the measurements: they go to the descriptor that was standard output at the start.
_channel = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)


def say(**values) -> None:
    print(json.dumps(values), file=_channel, flush=True)


def _wait() -> None:
    if sys.stdin.readline().strip() != "go":
        os._exit(0)  # the comparison is over; whatever a trainer would still do at its end is of no interest


def serve(measure: Callable[[], tuple[float, float]], **facts) -> None:
    """measure() -> (units, seconds), once for each "go". `facts` are told beforehand and end up in the results."""
    say(ready=True, **facts)
    while True:
        _wait()
        units, seconds = measure()
        say(units=units, seconds=seconds)


class Pace:
    """For a training loop that somebody else wrote: call `step(units)` after each step.

    The first `warmup` steps are not timed; after that each measurement is `steps` steps, from the end of one to the end of
    the last, so loading batches, the optimizer and the logging of the loop are all in it.
    """

    def __init__(self, warmup: int, steps: int, **facts):
        self.warmup, self.steps, self.facts = warmup, steps, facts
        self.seen, self.units, self.began = 0, 0.0, 0.0

    def step(self, units: float) -> None:
        self.seen += 1
        if self.seen < self.warmup:
            return
        if self.seen == self.warmup:
            say(ready=True, **self.facts)
        else:
            self.units += units
            if (self.seen - self.warmup) % self.steps:
                return
            say(units=self.units, seconds=time.perf_counter() - self.began)
        _wait()
        self.units, self.began = 0.0, time.perf_counter()
