"""Bar charts of the report: controls side by side, and terms stacked on both sides of zero."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from codedance_verl.evaluation.figures import Figure
from codedance_verl.evaluation.plots import COLOUR, GRID, INK, Chart, empty

_MOST_LABELS = 12
"""Bars that are labelled, at most; of more every second, third, ... is."""


def grouped_bars(
    title: str,
    groups: Sequence[tuple[str, Sequence[Figure | None]]],
    labels: Sequence[tuple[str, int]],
    lines: Sequence[float | None],
) -> Markup:
    """Bars of shares side by side with their intervals.

    Args:
        title: caption.
        groups: label and bars of each group, in the order of `labels`; None leaves a gap.
        labels: label and colour (below COLOURS) of each bar within a group.
        lines: height of a dashed line across each group; None for no line.
    """
    if not any(bar is not None and bar.value is not None for _, bars in groups for bar in bars):
        return empty(title)
    chart, width = Chart(8.0, 2.4), 0.8 / len(labels)
    for index, ((_, bars), line) in enumerate(zip(groups, lines, strict=True)):
        for place, (bar, (_, colour)) in enumerate(zip(bars, labels, strict=True)):
            if bar is None or bar.value is None:
                continue
            x = index - 0.4 + (place + 0.5) * width
            chart.axes.bar(x, bar.value, width=width * 0.9, color=COLOUR[colour], clip_on=False)
            if bar.low is not None and bar.high is not None:
                chart.axes.plot([x, x], [bar.low, bar.high], color=INK, lw=1, clip_on=False)
        if line is not None:
            chart.axes.plot([index - 0.45, index + 0.45], [line, line], color=INK, lw=1.2, ls="--", clip_on=False)
    chart.axes.set(xlim=(-0.6, len(groups) - 0.4), ylim=(0, 1))
    # a dollar sign in the name of a kind is no formula
    chart.axes.set_xticks(range(len(groups)), [label for label, _ in groups], parse_math=False)
    chart.axes.yaxis.set_major_formatter("{x:.0%}")
    chart.axes.grid(axis="y", color=GRID, clip_on=False)
    chart.axes.set_axisbelow(True)
    return chart.inline(title, labels)


def stacked_bars(
    title: str,
    bars: Sequence[tuple[str, Sequence[float | None]]],
    labels: Sequence[tuple[str, int]],
    marks: Sequence[float | None],
    mark_label: str,
) -> Markup:
    """Bars of signed terms: those above zero stacked upwards, those below stacked downwards.

    Args:
        title: caption.
        bars: label and terms of each bar, in the order of `labels`; None counts as 0.
        labels: label and colour (below COLOURS) of each term.
        marks: a point on each bar, such as the sum of its terms; None for no point.
        mark_label: meaning of the points.
    """
    if not any(term is not None for _, terms in bars for term in terms):
        return empty(title)
    chart = Chart(3.3, 2.2)
    above, below = [0.0] * len(bars), [0.0] * len(bars)  # ends of each bar so far
    for place, (_, colour) in enumerate(labels):
        heights = [terms[place] or 0.0 for _, terms in bars]
        starts = [up if height >= 0 else down for height, up, down in zip(heights, above, below, strict=True)]
        chart.axes.bar(range(len(bars)), heights, bottom=starts, width=0.7, color=COLOUR[colour], clip_on=False)
        above = [up + max(height, 0.0) for up, height in zip(above, heights, strict=True)]
        below = [down + min(height, 0.0) for down, height in zip(below, heights, strict=True)]
    points = [(x, mark) for x, mark in enumerate(marks) if mark is not None]
    chart.axes.plot(*zip(*points, strict=True), color=INK, marker="D", ms=4, ls="", clip_on=False, zorder=4)
    chart.axes.axhline(0, color=INK, lw=0.8, clip_on=False)
    # rounded up, so that there are never more
    every = -(-len(bars) // _MOST_LABELS)
    shown = range(0, len(bars), every)
    chart.axes.set_xticks(list(shown), [bars[index][0] for index in shown], parse_math=False)
    # room for three at least, or a single bar would fill the chart
    chart.axes.set_xlim(-0.6, max(len(bars), 3) - 0.4)
    chart.axes.yaxis.set_major_formatter(lambda value, _: f"{value * 100:.0f}")
    chart.axes.grid(axis="y", color=GRID, clip_on=False)
    chart.axes.set_axisbelow(True)
    return chart.inline(title, labels, f"\N{BLACK DIAMOND} {mark_label}")
