from __future__ import annotations

import re
from xml.etree import ElementTree

from codedance_verl.evaluation.bar_plots import grouped_bars, stacked_bars
from codedance_verl.evaluation.figures import Figure


def heights(chart: str, colour: int) -> list[tuple[float, float]]:
    """Top and bottom of the bars of a colour, in the chart's units, which grow downwards."""
    root = ElementTree.fromstring(re.sub("xlink:", "", chart))
    filled = [node.get("d", "") for node in root.iter("path") if f"fill: var(--c{colour})" in node.get("style", "")]
    ys = [[float(y) for _, y in re.findall(r"(-?[\d.]+) (-?[\d.]+)", path)] for path in filled]
    return [(min(found), max(found)) for found in ys]


def test_bars_are_as_high_as_their_shares() -> None:
    bars = [("look", [Figure(0.8, 0.7, 0.9, 10), Figure(0.2, None, None, 10), None])]
    labels = [("as is", 0), ("grey", 5), ("no tools", 1)]
    chart = grouped_bars("t", bars, labels, [1 / 6])
    ((high_top, foot),), ((low_top, other_foot),) = heights(chart, 0), heights(chart, 5)
    assert foot == other_foot and abs((foot - high_top) / (foot - low_top) - 4) < 0.01
    assert heights(chart, 1) == [] and "look" in chart and "no tools" in chart
    assert "stroke-dasharray" in chart, "the line of chance"
    assert "stroke-dasharray" not in grouped_bars("t", bars, labels, [None])


def test_terms_are_stacked_on_both_sides_of_zero() -> None:
    bars = [("SFT", [0.5, 0.2, -0.1]), ("s0:20", [0.5, None, None])]
    chart = stacked_bars("t", bars, [("without", 5), ("won", 2), ("lost", 11)], [0.6, 0.5], "accuracy")
    (first, second), won, lost = heights(chart, 5), heights(chart, 2)[0], heights(chart, 11)[0]
    assert first == second and won[1] == first[0], "what is won stands on top"
    assert lost[0] == first[1], "what is lost hangs below"
    assert abs((first[1] - first[0]) / (won[1] - won[0]) - 2.5) < 0.01 and "accuracy" in chart


def test_many_bars_are_labelled_sparsely() -> None:
    bars = [(f"s0:{step}", [0.1]) for step in range(100)]
    chart = stacked_bars("t", bars, [("a", 0)], [None] * 100, "m")
    assert len(re.findall("s0:", chart)) <= 12


def test_nothing_measured_is_said_so() -> None:
    assert "not recorded" in grouped_bars("t", [("a", [None])], [("x", 0)], [None])
    assert "not recorded" in stacked_bars("t", [], [("x", 0)], [], "m")


def test_labels_stay_text() -> None:
    hostile = "<script>$x$&"
    chart = grouped_bars(hostile, [(hostile, [Figure(0.5, None, None, 1)])], [(hostile, 0)], [None])
    chart += stacked_bars(hostile, [(hostile, [0.5])], [(hostile, 0)], [0.5], hostile)
    assert "<script>" not in chart and chart.count("&lt;script&gt;$x$&amp;") == 9
