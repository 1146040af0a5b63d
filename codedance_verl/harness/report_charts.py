"""Charts of the page: figures beside published ones, use of tools against difficulty, controls, turns."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from codedance_verl.evaluation.bar_plots import grouped_bars
from codedance_verl.evaluation.figures import Figure
from codedance_verl.evaluation.plots import Series, comparison_chart, empty, line_chart
from codedance_verl.harness.estimate import Estimate
from codedance_verl.harness.figures import OFFICIAL
from codedance_verl.harness.published import CODEDANCE, PublishedFigure
from codedance_verl.harness.report import BenchmarkReport, Tools
from codedance_verl.runtime.text import visible

_NOTHING = Figure(None, None, None, 0)


def overview_chart(benchmarks: Sequence[BenchmarkReport]) -> Markup:
    """First official figure of each benchmark with its interval, and the published one with its half-width."""
    rows = [(one.title, _published(one.published), _headline(one)) for one in benchmarks]
    if not any(bar.value is not None for _, *bars in rows for bar in bars):
        return empty("Official figure of each benchmark")
    labels = (
        f"{CODEDANCE}, published, with the interval of so many items",
        "this run, official rule, with its interval",
    )
    return comparison_chart("Official figure of each benchmark, with 95 % intervals", rows, labels)


def bar_charts(tools: Tools) -> tuple[Markup, ...]:
    """Wide charts: use of tools against difficulty, accuracy under controls; those that were measured."""
    charts = []
    if tools.calibration is not None:
        bins = [bar for bar in tools.calibration.bins if bar.items]
        groups = [
            (f"{bar.low:.0%} to {bar.high:.0%}, {bar.items:,} items", [_figure(bar.use, bar.items)]) for bar in bins
        ]
        labels = [("share of answers in which a call ran, by how often the item is wrong without tools", 0)]
        charts.append(grouped_bars("Use of tools against difficulty", groups, labels, [None] * len(groups)))
    if tools.controls:
        bars = [
            (
                visible(one.control.replace("_", " ")),
                [_figure(one.accuracy, one.items), _figure(one.controlled, one.items)],
            )
            for one in tools.controls
        ]
        labels = [("as it is, same items", 0), ("under the control", 1)]
        charts.append(grouped_bars("Accuracy under controls", bars, labels, [None] * len(bars)))
    return tuple(charts)


def curves(tools: Tools) -> tuple[Markup, ...]:
    """Narrow charts: answers by turn, accuracy by limit of turns; those that were measured."""
    charts = []
    if tools.turns:
        answered = Series("answered", [(point.turns, point.answered) for point in tools.turns], 5)
        right = Series("answered and right", [(point.turns, point.right.value) for point in tools.turns], 0)
        charts.append(line_chart("Answers within so many turns", [answered, right], percent=True, x_label="turns"))
    if tools.limits:
        line = Series("accuracy", [(point.max_turns, point.accuracy.value) for point in tools.limits], 0)
        charts.append(line_chart("Accuracy by limit of turns", [line], percent=True, x_label="max_turns"))
    return tuple(charts)


def _headline(one: BenchmarkReport) -> Figure:
    scoring = one.scoring(OFFICIAL)
    if scoring is None or scoring.headline is None:
        return _NOTHING
    return _figure(scoring.headline.estimate, scoring.headline.items)


def _published(figures: Sequence[PublishedFigure]) -> Figure:
    found = next((figure for figure in figures if figure.model == CODEDANCE), None)
    if found is None:
        return _NOTHING
    half = found.half_width_clusters
    # Wilson's interval is not symmetric: half of it on both sides may leave 0 to 1
    return Figure(found.value, max(0.0, found.value - half), min(1.0, found.value + half), found.items)


def _figure(estimate: Estimate, items: int) -> Figure:
    return Figure(estimate.value, estimate.low, estimate.high, items)
