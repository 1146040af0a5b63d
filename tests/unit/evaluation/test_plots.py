from __future__ import annotations

import re
from xml.etree import ElementTree

from codedance_verl.evaluation.plots import Bar, Comparison, Part, Series, comparison_chart, line_chart, stacked_bar


def polylines(chart: str) -> list[list[tuple[float, float]]]:
    found = [node.get("points", "") for node in ElementTree.fromstring(chart).iter("polyline")]
    return [[tuple(map(float, pair.split(","))) for pair in text.split()] for text in found]  # type: ignore[misc]


def test_a_line_rises_with_its_values() -> None:
    (line,) = polylines(line_chart("t", [Series("a", [(1, 0.0), (2, 0.5), (3, 1.0)], 0)], percent=True))
    xs, ys = zip(*line, strict=True)
    assert list(xs) == sorted(xs) and xs[1] - xs[0] == xs[2] - xs[1]
    assert ys[0] > ys[1] > ys[2] and abs((ys[0] - ys[1]) - (ys[1] - ys[2])) < 0.2


def test_a_missing_point_leaves_a_gap() -> None:
    lines = polylines(line_chart("t", [Series("a", [(1, 0.1), (2, 0.2), (3, None), (4, 0.4)], 0)], percent=True))
    assert [len(line) for line in lines] == [2, 2]


def test_values_outside_zero_and_one_fit_the_chart() -> None:
    (line,) = polylines(line_chart("t", [Series("a", [(1, -3.0), (2, 5.0)], 0)], percent=False))
    assert all(0 <= y <= 220 for _, y in line)


def test_one_step_and_constant_values_can_be_drawn() -> None:
    assert polylines(line_chart("t", [Series("a", [(1, 2.0)], 0)], percent=False))


def test_nothing_recorded_is_said_so() -> None:
    assert "not recorded" in line_chart("t", [Series("a", [(1, None)], 0)], percent=True)
    assert "not recorded" in stacked_bar("t", [])


def test_intervals_surround_their_values() -> None:
    row = Comparison("accuracy", Bar(0.5, 0.4, 0.6), Bar(None, None, None))
    root = ElementTree.fromstring(comparison_chart("t", [row], ("before", "after")))
    (circle,) = root.iter("circle")
    (interval,) = [node for node in root.iter("line") if "line" in node.get("class", "")]
    low, middle, high = float(interval.get("x1", 0)), float(circle.get("cx", 0)), float(interval.get("x2", 0))
    assert low < middle < high and abs((low + high) / 2 - middle) < 0.2


def test_pieces_of_a_bar_are_in_proportion() -> None:
    chart = stacked_bar("t", [Part("a", 30.0, 0), Part("b", 10.0, 1)])
    widths = [float(width) for width in re.findall(r'<rect [^>]*width="([\d.]+)"', chart)]
    assert widths == [480.0, 160.0] and "75%" in chart
