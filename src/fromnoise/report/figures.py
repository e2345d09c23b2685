"""Figures as SVG inside the page: drawn by matplotlib, coloured by the page's own style, so that dark mode and print work.

Deterministic: the same numbers give the same bytes (fixed hash salt, no date). Text stays text, for readers and search.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence

from markupsafe import Markup, escape

# What matplotlib draws with -> the custom property of the style sheet that replaces it.
COLOURS = {
    "ink": "#010101",
    "muted": "#020202",
    "grid": "#030303",
    "base": "#040404",
    "sft": "#050505",
    "rlhf": "#060606",
    "reason": "#090909",
    "reward": "#070707",
    "audit": "#080808",
}
# Each series has a dash and a marker of its own too: colour is never the only difference.
DASHES = {"base": (0, (1, 1.5)), "sft": (0, (5, 2)), "rlhf": "-", "reason": (0, (7, 2, 1, 2)), "reward": "-", "audit": (0, (5, 2))}
MARKERS = {"base": "s", "sft": "o", "rlhf": "^", "reason": "D", "reward": "o", "audit": "s"}


def figure(name: str, caption: str, draw: Callable) -> Markup:
    """An inline SVG of what `draw(axes)` draws. `caption` is read out by screen readers; `name` salts the ids."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    settings = {
        "svg.hashsalt": name,
        "svg.fonttype": "none",
        "font.family": "DejaVu Sans",
        "font.size": 10,
        "axes.edgecolor": COLOURS["grid"],
        "axes.labelcolor": COLOURS["muted"],
        "text.color": COLOURS["ink"],
        "xtick.color": COLOURS["muted"],
        "ytick.color": COLOURS["muted"],
        "axes.grid": True,
        "grid.color": COLOURS["grid"],
        "grid.linewidth": 0.6,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.frameon": False,
        "lines.linewidth": 1.6,
        "path.simplify": True,
        "path.simplify_threshold": 0.5,
        "axes.formatter.useoffset": False,
    }
    with matplotlib.rc_context(settings):
        drawn, axes = pyplot.subplots(figsize=(5.2, 3.0), layout="constrained")
        try:
            drawn.patch.set_visible(False)
            axes.patch.set_visible(False)
            draw(axes)
            target = io.StringIO()
            drawn.canvas.print_svg(target, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
        finally:
            pyplot.close(drawn)
    return Markup(_inline(target.getvalue(), caption))


def _inline(svg: str, caption: str) -> str:
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    used = set(re.findall(r"(?:url\(#|href=\"#)([^\")]+)", svg))
    svg = re.sub(r' id="([^"]*)"', lambda match: match.group(0) if match.group(1) in used else "", svg)
    svg = re.sub(r"'DejaVu Sans'(?:, [^;\"]*)?", "inherit", svg)
    svg = re.sub(r"font: ([\d.]+px) inherit", r"font-size: \1", svg)
    for name, colour in COLOURS.items():
        svg = svg.replace(colour, f"var(--{name})")
    view = re.search(r'viewBox="[^"]*"', svg).group(0)
    head = (
        f'<svg class="figure" role="img" aria-label="{escape(caption)}" {view} xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">'
    )
    return re.sub(r"<svg[^>]*>", lambda _: head, svg, count=1).strip()


def lines(
    series: Sequence[tuple[str, str, Sequence[tuple[float, float]]]],  # (label, colour name, points)
    *,
    x: str,
    y: str,
    log_x: bool = False,
    level: tuple[str, float] | None = None,  # a horizontal line with its label
) -> Callable:
    """A drawer of line series. A series of one point is drawn as a dot."""

    def draw(axes) -> None:
        for label, colour, points in series:
            points = [point for point in points if not log_x or point[0] > 0]
            marker = MARKERS.get(colour) if len(points) < 40 else None
            if points:
                style = {"color": COLOURS[colour], "linestyle": DASHES.get(colour, "-"), "marker": marker, "markersize": 3.5}
                axes.plot(*zip(*points, strict=True), label=label, **style)
        if log_x:
            axes.set_xscale("log")
            axes.minorticks_off()
        elif all(float(x_at).is_integer() for _, _, points in series for x_at, _ in points):
            axes.xaxis.get_major_locator().set_params(integer=True)
        if level:
            axes.axhline(level[1], color=COLOURS["muted"], linewidth=1, linestyle=(0, (1, 2)))
            place = {"xycoords": ("axes fraction", "data"), "xytext": (-2, -3), "textcoords": "offset points", "ha": "right", "va": "top"}
            axes.annotate(level[0], (1, level[1]), fontsize=9, color=COLOURS["muted"], **place)
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        if len(series) > 1:
            axes.legend(fontsize=9)

    return draw


def rungs(series: Sequence[tuple[str, str, dict[int, dict]]], *, x: str, y: str) -> Callable:
    """A drawer of accuracies with their intervals by number of mentions; rungs stand at equal distances."""
    steps = sorted({mentions for _, _, values in series for mentions in values})
    places = {mentions: place for place, mentions in enumerate(steps)}

    def draw(axes) -> None:
        for number, (label, colour, values) in enumerate(series):
            shift = (number - (len(series) - 1) / 2) * 0.12
            known = [(places[m] + shift, values[m]) for m in steps if values.get(m, {}).get("value") is not None]
            if not known:
                continue
            xs, ys = [place for place, _ in known], [one["value"] for _, one in known]
            below = [0.0 if one["low"] is None else one["value"] - one["low"] for _, one in known]
            above = [0.0 if one["high"] is None else one["high"] - one["value"] for _, one in known]
            style = {"color": COLOURS[colour], "linestyle": DASHES[colour], "marker": MARKERS[colour], "markersize": 4, "capsize": 2, "elinewidth": 1}
            axes.errorbar(xs, ys, yerr=[below, above], label=label, **style)
        axes.set_xticks(range(len(steps)), [f"{m:,}" for m in steps])
        axes.set_ylim(-0.03, 1.03)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        if len(series) > 1:
            axes.legend(fontsize=9)

    return draw


def thinned(points: Sequence[tuple[float, float]], most: int = 400) -> list[tuple[float, float]]:
    """At most `most` points: neighbours averaged. The first is kept as it is, for a loss begins at ln V there."""
    if len(points) <= most:
        return list(points)
    size = -(-(len(points) - 1) // (most - 1))
    groups = [points[at : at + size] for at in range(1, len(points), size)]
    return [points[0], *((sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)) for group in groups)]
