"""What a page is made of, and how its numbers are written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from fromnoise.evaluate.text import visible

NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Cell:
    text: str
    small: str = ""  # a second, quieter line: interval and count
    tone: str = ""  # "" | "good" | "bad" | "quiet" | "strong" | "nowrap" | "label"
    badge: str = ""  # a word set in a frame: "simulated"


@dataclass(frozen=True)
class Table:
    head: Sequence[str]
    rows: Sequence[Sequence[Cell | str]]
    caption: str = ""
    kind: str = "table"


@dataclass(frozen=True)
class Figures:
    drawings: Sequence[tuple[str, str]]  # (inline SVG as Markup, caption)
    kind: str = "figures"


@dataclass(frozen=True)
class Prose:
    text: str
    tone: str = ""  # "" | "missing" | "note"
    kind: str = "prose"


@dataclass(frozen=True)
class Answers:
    """One prompt and what each model made of it. All of it is a model's or a user's text: never markup."""

    prompt: str
    label: str
    columns: Sequence[tuple[str, str, str]]  # (model, answer, note)
    kind: str = "answers"


@dataclass(frozen=True)
class Probe:
    """One beginning, completed at several steps."""

    text: str
    rows: Sequence[tuple[str, Sequence[tuple[str, float]], str]]  # (when, likeliest next tokens, how it goes on)
    kind: str = "probe"


@dataclass
class Section:
    anchor: str
    title: str
    lede: str = ""
    blocks: list = field(default_factory=list)

    def missing(self, text: str) -> Section:
        self.blocks.append(Prose(text, tone="missing"))
        return self


# -- numbers ----------------------------------------------------------------------------------------------------------


def percent(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{100 * value:.{digits}f} %"


def number(value: float | None, digits: int = 3) -> str:
    """Three significant digits, no exponent for everyday sizes."""
    if value is None or not math.isfinite(value):
        return "–"
    if value == 0 or (float(value).is_integer() and 10**digits <= abs(value) < 1e15):
        return f"{value + 0.0:,.0f}"  # -0.0 is 0
    if 1e-3 <= abs(value) < 1e6:
        decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
        return f"{value:,.{decimals}f}"
    return f"{value:.{digits - 1}e}"


def points(value: float) -> str:
    """A difference of proportions in percentage points, with its sign; nothing is neither."""
    return f"{100 * value:+.1f}" if abs(value) >= 0.0005 else "0.0"


def count(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def large(value: float | None, unit: str = "") -> str:
    """1,234,000 as 1.23 M."""
    if value is None:
        return "–"
    for size, letter in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 0.9995 * size:  # 999,936 is 1 M, not 1e+03 k
            return f"{value / size:.3g} {letter}{unit}"
    return f"{value:.3g} {unit}".strip()


def duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def measured(estimate: dict[str, Any] | None, style: str = "percent", tone: str = "") -> Cell:
    """An estimate as a cell: the value, and below it interval and n. Styles: percent, points (a difference of
    proportions), number, signed."""
    if not estimate or estimate.get("value") is None:
        return Cell(NOT_MEASURED, tone="quiet")
    write = {
        "percent": percent,
        "points": lambda value: f"{points(value)} points",
        "number": number,
        "signed": lambda value: ("+" if value > 0 else "") + number(value),
    }[style]
    return Cell(write(estimate["value"]), interval(estimate, style), tone)


def interval(estimate: dict[str, Any], style: str = "percent") -> str:
    low, high, n = estimate.get("low"), estimate.get("high"), estimate.get("n")
    parts = []
    if low is not None and high is not None:
        if style == "points":
            parts.append(f"{points(low)} to {points(high)}")
        elif style == "percent":
            parts.append(f"{100 * low:.1f} to {100 * high:.1f}")
        else:
            parts.append(f"{number(low)} to {number(high)}")
    if n is not None:
        parts.append(f"n = {n:,}")
    return " · ".join(parts)


def shown(text: Any) -> str:
    """A model's or a user's text as the page may carry it; the template escapes it."""
    return visible(text if isinstance(text, str) else str(text))
