"""What a person sees while a run goes on: a live bar on a terminal, a line now and then elsewhere, nothing when quiet."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

LINE_EVERY_S = 10.0  # between progress lines where there is no terminal


class Console:
    """quiet: print nothing but errors. All output goes to stdout, errors to stderr."""

    def __init__(self, quiet: bool = False):
        self.quiet = quiet
        # Python has None for an output that is closed; a dumb terminal cannot draw a bar, and would be shown nothing
        self.is_terminal = sys.stdout is not None and sys.stdout.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")
        self._live = None

    def line(self, text: str = "") -> None:
        if self.quiet:
            return
        if self._live is not None:
            self._live.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, flush=True)

    def warn(self, text: str) -> None:
        """Shown even when quiet: something is not as it should be, though the run goes on."""
        print(f"warning: {text}", file=sys.stderr, flush=True)

    @contextmanager
    def progress(self, label: str, total: int, unit: str, start: int = 0) -> Iterator[Progress]:
        if self.quiet or not self.is_terminal:
            yield Progress(self, label, total, unit, start)
            return
        with _bar() as live:
            self._live = live
            try:
                yield Progress(self, label, total, unit, start, live)
            finally:
                self._live = None


class Progress:
    """`advance(n, loss=2.31)`: n more units are done; the named values are shown beside rate and time left."""

    def __init__(self, console: Console, label: str, total: int, unit: str, start: int, live=None):
        self.console, self.label, self.total, self.unit = console, label, total, unit
        self.done = self._first = start
        self._began = self._shown = time.perf_counter()
        self._live = live
        if live is not None:
            self._task = live.add_task(label, total=total, completed=start, rate="", shown="")

    def end_at(self, total: int) -> None:
        """There are `total` units after all."""
        self.total = total
        if self._live is not None:
            self._live.update(self._task, total=total)

    def advance(self, n: int = 1, **shown: Any) -> None:
        self.done += n
        now = time.perf_counter()
        rate = (self.done - self._first) / max(now - self._began, 1e-9)
        if self._live is not None:
            self._live.update(self._task, completed=self.done, rate=f"{_number(rate)} {self.unit}/s", shown=describe(shown))
        elif now - self._shown >= LINE_EVERY_S:
            self._shown = now
            left = duration(max(self.total - self.done, 0) / max(rate, 1e-9))
            units = self.unit + ("es" if self.unit.endswith("ch") else "s")
            parts = [f"{self.label}: {self.done:,}/{self.total:,} {units}", f"{_number(rate)} {self.unit}/s", f"{left} left", describe(shown)]
            self.console.line("  ".join(part for part in parts if part))


def _bar():
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar
    from rich.table import Column

    columns = ("{task.description}", BarColumn(bar_width=12), MofNCompleteColumn(), "{task.fields[rate]}", TimeRemainingColumn())
    last = Column(overflow="ignore")  # where 80 columns do not hold everything, this one is cut; else all are, and the time left reads 0:0…
    return Bar(*columns, TextColumn("{task.fields[shown]}", markup=False, table_column=last), transient=True, refresh_per_second=4)


def describe(values: dict[str, Any]) -> str:
    """`loss 2.314  tokens_per_s 11,240` for the numbers and short texts among `values`; `a/x`, `a/y` in a row as `a: x 1, y 2`."""
    parts: list[str] = []
    group = None
    for name, value in values.items():
        if not isinstance(value, (int, float, str)):
            continue
        prefix, slash, rest = name.partition("/")
        if slash and prefix == group:
            parts[-1] += f", {rest} {_number(value)}"
        else:
            parts.append(f"{prefix}: {rest} {_number(value)}" if slash else f"{name} {_number(value)}")
        group = prefix if slash else None
    return "  ".join(parts)


def _number(value: Any) -> str:
    if isinstance(value, (bool, str)):
        return str(value)
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def duration(seconds: float) -> str:
    """`1h 02m`, `3m 20s`, `12s`, `0.4s`."""
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h {minutes:02d}m"
    return f"{minutes}m {rest:02d}s" if minutes else f"{rest}s"
