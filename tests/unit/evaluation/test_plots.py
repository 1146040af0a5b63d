from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from codedance_verl.evaluation.plots import Series, comparison_chart, line_chart, stacked_bar
from codedance_verl.evaluation.report import Figure


def paths(chart: str, colour: int) -> list[list[tuple[float, float]]]:
    """Points of what is drawn in a colour, an entry for each unbroken piece."""
    root = ElementTree.fromstring(re.sub("xlink:", "", chart))
    drawn = [node.get("d", "") for node in root.iter("path") if f"var(--c{colour})" in node.get("style", "")]
    pieces = [piece for path in drawn for piece in path.split("M")[1:] if "C" not in piece]  # curves are markers
    return [[(float(x), float(y)) for x, y in re.findall(r"(-?[\d.]+) (-?[\d.]+)", piece)] for piece in pieces]


def markers(chart: str, colour: int) -> list[float]:
    """Horizontal positions of the markers of a colour."""
    root = ElementTree.fromstring(re.sub("xlink:", "", chart))
    return [float(node.get("x", 0)) for node in root.iter("use") if f"var(--c{colour})" in node.get("style", "")]


def test_a_line_rises_with_its_values() -> None:
    (line,) = paths(line_chart("t", [Series("a", [(1, 0.0), (2, 0.5), (3, 1.0)], 0)], percent=True), 0)
    xs, ys = zip(*line, strict=True)
    assert list(xs) == sorted(xs) and xs[1] - xs[0] == pytest.approx(xs[2] - xs[1], abs=0.01)
    assert ys[0] > ys[1] > ys[2] and abs((ys[0] - ys[1]) - (ys[1] - ys[2])) < 0.2


def test_a_missing_point_leaves_a_gap() -> None:
    chart = line_chart("t", [Series("a", [(1, 0.1), (2, 0.2), (3, None), (4, 0.4), (5, 0.5)], 3)], percent=True)
    assert [len(line) for line in paths(chart, 3)] == [2, 2]


def test_values_outside_zero_and_one_fit_the_chart() -> None:
    chart = line_chart("t", [Series("a", [(1, -3.0), (2, 5.0)], 0)], percent=False)
    (line,) = paths(chart, 0)
    found = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', chart)
    assert found is not None and all(0 <= y <= float(found.group(2)) for _, y in line)


def test_one_step_and_constant_values_can_be_drawn() -> None:
    assert markers(line_chart("t", [Series("a", [(1, 2.0)], 0)], percent=False), 0)


def test_nothing_recorded_is_said_so() -> None:
    assert "not recorded" in line_chart("t", [Series("a", [(1, None)], 0)], percent=True)
    assert "not recorded" in stacked_bar("t", [])


def test_intervals_surround_their_values() -> None:
    row = ("accuracy", Figure(0.5, 0.4, 0.6, 1), Figure(None, None, None, 1))
    chart = comparison_chart("t", [row], ("before", "after"))
    (interval,), (middle,) = paths(chart, 1), markers(chart, 1)
    low, high = interval[0][0], interval[1][0]
    assert low < middle < high and abs((low + high) / 2 - middle) < 0.2
    assert not paths(chart, 0) and not markers(chart, 0)


def test_pieces_of_a_bar_are_in_proportion() -> None:
    chart = stacked_bar("t", [("a", 30.0), ("b", 10.0)])
    (large,), (small,) = paths(chart, 0), paths(chart, 1)
    widths = [max(x for x, _ in piece) - min(x for x, _ in piece) for piece in (large, small)]
    assert widths[0] == pytest.approx(3 * widths[1], rel=0.01) and "75%" in chart


def test_labels_stay_text_and_nothing_outside_is_named() -> None:
    hostile = "<script>$x$&"
    chart = comparison_chart(
        hostile, [(hostile, Figure(0.5, 0.4, 0.6, 1), Figure(0.6, 0.5, 0.7, 1))], (hostile, "after")
    )
    assert "<script>" not in chart and chart.count("&lt;script&gt;$x$&amp;") == 4  # caption, description, row, legend
    assert not re.search(r"https?://|url\(|#c0de", chart)
