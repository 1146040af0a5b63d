"""Figures as ratios of sums over units."""

from __future__ import annotations

import pytest

from codedance_verl.tasks.figures import Figure, Mark, Unit, accuracy, bounded, mean, mean_of_means, means_by, split
from codedance_verl.tasks.item import Item


def _mark(value: float, **strata: str) -> Mark:
    return Mark.of(Item("i", "?", (), "1", cluster="c", strata=strata), value)


def test_a_figure_is_a_sum_over_a_sum() -> None:
    units = (Unit("a", 1, 2), Unit("b", 0.5, 1), Unit("c", 0, 1))
    assert Figure("f", "", units).value == pytest.approx(1.5 / 4)
    assert Figure("f", "", ()).value is None


def test_a_mean_of_means_weighs_parts_equally() -> None:
    marks = [_mark(1, half="a")] * 1 + [_mark(0, half="b")] * 2 + [_mark(1, half="b")]
    figure = mean_of_means("m", "", marks, "half")
    assert figure.value == pytest.approx((1 + 1 / 3) / 2)
    assert sum(unit.weight for unit in figure.units) == pytest.approx(1)
    assert mean("m", "", marks).value == pytest.approx(0.5)


def test_items_without_the_stratum_count_as_in_the_mean_of_all() -> None:
    marks = [_mark(1, half="a"), _mark(1, half="b"), _mark(1, half="b"), _mark(0)]
    figure = mean_of_means("m", "", marks, "half")
    assert figure.value == pytest.approx(0.75)
    assert len(figure.units) == 4


def test_a_mean_of_means_of_nothing_is_none() -> None:
    assert mean_of_means("m", "", [], "half").value is None
    assert mean_of_means("m", "", [_mark(1), _mark(0)], "half").value == pytest.approx(0.5)


def test_means_by_a_stratum_are_named_after_its_values() -> None:
    marks = [_mark(1, kind="b"), _mark(0, kind="a"), _mark(0, kind="b")]
    assert [(figure.name, figure.value) for figure in means_by(marks, "kind")] == [("a", 0.0), ("b", 0.5)]
    assert list(split(marks, "kind")) == ["a", "b"]
    assert accuracy(marks)[0].value == pytest.approx(1 / 3)


def test_a_mark_keeps_cluster_and_strata() -> None:
    mark = _mark(1, b="2", a="1")
    assert (mark.cluster, mark.strata, mark.stratum("b"), mark.stratum("c")) == ("c", (("a", "1"), ("b", "2")), "2", "")


def test_items_without_a_score_are_wrong_and_bound_the_figure() -> None:
    items = [Item(str(number), "?", (), "1", strata={"half": "ab"[number // 2]}) for number in range(4)]
    scored = list(zip(items, (1.0, 0.0, None, 0.5), strict=True))
    (found,) = bounded(accuracy, scored)
    assert (found.figure.value, found.upper) == (0.375, 0.625)
    halves = {
        part.figure.name: (part.figure.value, part.upper) for part in bounded(lambda m: means_by(m, "half"), scored)
    }
    assert halves == {"a": (0.5, 0.5), "b": (0.25, 0.75)}
