"""Charts of the report as inline SVG by matplotlib. Colours are the page's CSS variables, so that light and dark mode
both work."""

from __future__ import annotations

import io
import math
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, cycle
from typing import Any

from markupsafe import Markup

from codedance_verl.evaluation.figures import Figure

COLOURS = 12
"""The page defines the CSS variables --c0 to --c11."""

# matplotlib takes no CSS variable: these colours stand for them and are replaced in its output.
_STAND_INS = {f"#c0de{index:02x}": f"var(--c{index})" for index in range(COLOURS)}
INK, GRID = "#c0defe", "#c0deff"
_STAND_INS |= {INK: "var(--muted)", GRID: "var(--rule)"}
COLOUR = tuple(_STAND_INS)[:COLOURS]
"""Colours by number."""

# Text stays text, and ids do not depend on chance: the same figures give the same page.
_STYLE: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "report", "font.size": 8, "axes.edgecolor": GRID}
_STYLE |= dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), INK)

Point = tuple[float, float | None]


@dataclass(frozen=True)
class Series:
    """A line through (x, y) points. A point without y leaves a gap; `colour` is below COLOURS; thin: no legend."""

    label: str
    points: Sequence[Point]
    colour: int
    thin: bool = False


def line_chart(title: str, series: Sequence[Series], *, percent: bool, x_label: str = "RL step") -> Markup:
    """Lines over a shared x axis; `percent` fixes the y axis to 0-100 %, else it fits the values."""
    if not any(y is not None for line in series for _, y in line.points):
        return empty(title)
    chart = Chart(3.3, 2.0)
    for line in series:
        # NaN breaks a line; a marker shows a point that has no neighbour to be joined with.
        xs, ys = [x for x, _ in line.points], [math.nan if y is None else y for _, y in line.points]
        width, alpha = (0.8, 0.45) if line.thin else (1.8, 1.0)
        look = {"color": COLOUR[line.colour], "lw": width, "alpha": alpha, "zorder": 3 - line.thin}
        chart.axes.plot(xs, ys, marker=".", ms=3, clip_on=False, **look)
    chart.axes.grid(axis="y", color=GRID, clip_on=False)
    chart.axes.set_xlabel(x_label)
    chart.axes.xaxis.get_major_locator().set_params(integer=True)
    if percent:
        chart.axes.set_ylim(0, 1)
        chart.axes.yaxis.set_major_formatter("{x:.0%}")
    return chart.inline(title, [(line.label, line.colour) for line in series if not line.thin])


def seed_lines(label: str, seeds: Sequence[tuple[int, Sequence[Point]]], colour: int) -> list[Series]:
    """A thin line for each (seed, points) and a bold one for their mean, where there are several."""
    if len(seeds) == 1:
        return [Series(f"{label} (seed {seeds[0][0]})", seeds[0][1], colour)]
    own = [Series(f"seed {seed}", points, colour, thin=True) for seed, points in seeds]
    # Seeds may lack a step: the mean at a step is over those that have it.
    by_step = defaultdict[float, list[float]](list)
    for step, value in chain.from_iterable(points for _, points in seeds):
        if value is not None:
            by_step[step].append(value)
    mean = [(step, sum(values) / len(values)) for step, values in sorted(by_step.items())]
    return [*own, Series(f"{label} (bold: mean of {len(seeds)} seeds)", mean, colour)]


def comparison_chart(title: str, rows: Sequence[tuple[str, Figure, Figure]], labels: tuple[str, str]) -> Markup:
    """Label, before and after of each row, on one scale from 0 to 100 %, with intervals."""
    chart = Chart(8.0, 0.3 + 0.34 * len(rows))
    for index, (_, before, after) in enumerate(rows):
        for bar, y, colour in ((before, index - 0.17, 1), (after, index + 0.17, 0)):
            if bar.low is not None and bar.high is not None:
                chart.axes.plot([bar.low, bar.high], [y, y], color=COLOUR[colour], lw=2, clip_on=False)
            if bar.value is not None:
                chart.axes.plot([bar.value], [y], color=COLOUR[colour], marker="o", ms=6, ls="", clip_on=False)
    chart.axes.set(xlim=(0, 1), ylim=(len(rows) - 0.5, -0.5))  # the first row on top
    chart.axes.set_yticks(range(len(rows)), [label for label, _, _ in rows], parse_math=False)
    chart.axes.xaxis.set_major_formatter("{x:.0%}")
    chart.axes.grid(axis="x", color=GRID, clip_on=False)
    return chart.inline(title, list(zip(labels, (1, 0), strict=True)))


def stacked_bar(title: str, parts: Sequence[tuple[str, float]]) -> Markup:
    """One bar whose pieces, a label and seconds each, are shares of the total, with a legend that names them."""
    total = sum(seconds for _, seconds in parts)
    if total <= 0:
        return empty(title)
    chart, left = Chart(8.0, 0.4), 0.0
    for (_, seconds), colour in zip(parts, cycle(COLOUR), strict=False):
        chart.axes.barh(0, seconds, left=left, color=colour, clip_on=False)
        left += seconds
    chart.axes.set_xlim(0, total)
    chart.axes.set_axis_off()
    legend = [f"{label} {seconds:.1f} s ({seconds / total:.0%})" for label, seconds in parts]
    return chart.inline(title, list(zip(legend, cycle(range(COLOURS)), strict=False)))


class Chart:
    """Axes of a figure of its own, in inches, and its SVG."""

    def __init__(self, width: float, height: float) -> None:
        from matplotlib import figure, rc_context

        with rc_context(_STYLE):
            self._figure = figure.Figure(figsize=(width, height), layout="constrained")
            self.axes: Any = self._figure.subplots()
        self._figure.patch.set_visible(False)
        self.axes.patch.set_visible(False)
        self.axes.spines[["top", "right"]].set_visible(False)
        self.axes.tick_params(length=0, colors=INK, labelsize=8)

    def inline(self, title: str, legend: Sequence[tuple[str, int]], note: str = "") -> Markup:
        """Figure of the page: caption, chart, a legend of (label, colour), and a note behind it."""
        from matplotlib import rc_context

        out = io.StringIO()
        with rc_context(_STYLE):
            self._figure.savefig(out, format="svg")
        drawn = out.getvalue()
        drawn = drawn[drawn.index("<svg") :]
        # A page needs no namespaces, and the report names no address outside of itself.
        drawn = re.sub(r' xmlns(:\w+)?="[^"]*"|<metadata>.*?</metadata>|<style.*?</style>', "", drawn, flags=re.DOTALL)
        drawn = re.sub("|".join(_STAND_INS), lambda found: _STAND_INS[found.group()], drawn)
        described = Markup('<svg role="img" aria-label="{}"').format(title)
        keys = [
            Markup('<span class="key"><i class="c{}"></i>{}</span>').format(colour, label) for label, colour in legend
        ]
        if note:
            keys.append(Markup('<span class="key">{}</span>').format(note))
        shown = described + Markup(drawn.removeprefix("<svg"))  # matplotlib escapes the texts in it
        return _figure(title, shown + Markup('<div class="legend">{}</div>').format(Markup("").join(keys)))


def _figure(title: str, content: Markup) -> Markup:
    return Markup("<figure><figcaption>{}</figcaption>{}</figure>").format(title, content)


def empty(title: str) -> Markup:
    """Figure of the page without a chart, where there is nothing to draw."""
    return _figure(title, Markup('<p class="muted">not recorded</p>'))
