"""Ctrl-C and SIGTERM: save at the next step, then stop; a second one stops at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fromnoise.run.errors import Interrupted


class Interrupts:
    """While entered, turns SIGINT and SIGTERM into a request that a stage's checkpointer sees at its next step.

    Where there is no step to wait for (a stage that saves nothing, a model still loading), and on a second signal, the
    usual KeyboardInterrupt is raised instead: everything on disk is written so that a stop at any moment is safe.
    """

    def __init__(self, notice: Callable[[str], None] = lambda text: None):
        self.notice, self.stepping = notice, False
        self._requested: str | None = None
        self._previous: dict[int, object] = {}

    def requested(self) -> str | None:
        """The signal that asked to stop. Asking tells us that a stage is at a step boundary, and will be at others."""
        self.stepping = True
        return self._requested

    def reset(self) -> None:
        """Between stages: nothing to wait for."""
        self.stepping = False

    def stop_before(self, verb: str) -> None:
        """Raise Interrupted where the stage before this one was asked to stop too late for a step of its own: this one's first step may be
        minutes away, and some stages have none."""
        if self._requested is not None:
            raise Interrupted(f"stopped by {self._requested} before {verb}")

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    def _handle(self, number: int, _frame) -> None:
        name = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
        if self._requested is not None or not self.stepping:
            raise KeyboardInterrupt(name)
        self._requested = name
        self.notice(f"{name}: saving a checkpoint after this step, then stopping; once more stops at once")


@contextmanager
def ended_by_ctrl_c() -> Iterator[None]:
    """While entered, Ctrl-C ends the process at once, as SIGTERM does by itself: Python's own handler waits for the end of a call into C++, and ranks wait
    for each other in one, for hours. For where there is nothing to save."""
    own = threading.current_thread() is threading.main_thread()
    previous = signal.signal(signal.SIGINT, signal.SIG_DFL) if own else None
    try:
        yield
    finally:
        if own:
            signal.signal(signal.SIGINT, previous)
