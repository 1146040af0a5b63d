"""The models of the benchmark have the figures that they are said to have, and what is measured is kept."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.evaluation_models import (
    COMPARED,
    COMPOSITES,
    composite_sums,
    composite_truth,
    paired_sides,
    right_answers,
)
from benchmarks.evaluation_statistics import Draws, measure, summary
from benchmarks.interval_methods import RATE_METHODS
from codedance_verl.statistics.clusters import ClusterSums
from codedance_verl.statistics.comparison import compare


@pytest.mark.parametrize("figure", COMPOSITES)
def test_figures_of_composites_are_those_of_many_draws(figure: str) -> None:
    generator = np.random.default_rng(0)
    drawn = [composite_sums(generator, figure, 0.5) for _ in range(300)]
    above, below = (sum(float(side.sum()) for side in sides) for sides in zip(*map(vars_of, drawn), strict=True))
    assert above / below == pytest.approx(composite_truth(figure, 0.5), abs=0.005)


def vars_of(sums: ClusterSums) -> tuple[np.ndarray, np.ndarray]:
    return sums.numerators, sums.denominators


def test_answers_of_a_cluster_have_the_correlation_that_was_asked_for() -> None:
    right = right_answers(np.random.default_rng(0), np.full(400, 4), 0.3, 0.5, 200)
    assert right.mean() / 4 == pytest.approx(0.3, abs=0.01)
    assert right.var() / (4 * 0.3 * 0.7) == pytest.approx(1 + 3 * 0.5, rel=0.05)


@pytest.mark.parametrize("name", COMPARED)
@pytest.mark.parametrize("difference", [0.0, 0.03])
def test_pairs_have_the_planted_difference(name: str, difference: float) -> None:
    case = COMPARED[name]
    drawn = case.differences(np.random.default_rng(1), difference, 60)
    error = float(drawn.sum(axis=1).std()) / (case.clusters * case.size) / 60**0.5
    assert drawn.mean() / case.size == pytest.approx(difference, abs=4 * error)
    found = compare(*paired_sides(case, np.random.default_rng(2), difference))
    assert (found.cases, found.clusters) == (case.clusters * case.size, case.clusters)


def test_methods_agree_where_all_is_easy() -> None:
    right = right_answers(np.random.default_rng(0), np.full(500, 4), 0.5, 0.3, 1)[0]
    sums = ClusterSums(right, np.full(500, 4.0))
    intervals = {name: method(sums) for name, method in RATE_METHODS.items() if name != "Wilson, independent"}
    low, high = intervals["t"]
    assert all(found == pytest.approx((low, high), abs=0.004) for found in intervals.values()), intervals


def test_what_was_measured_is_kept_for_the_same_draws(tmp_path: Path) -> None:
    calls: list[int] = []

    def work() -> dict[str, float]:
        calls.append(1)
        return {"Wilson, by cluster": 95.2, "t": 91.0}

    output, draws = tmp_path / "out" / "cells.json", Draws(10, 2)
    first = measure(iter([("rate | shape | accuracy 0.5", work)]), output, draws)
    again = measure(iter([("rate | shape | accuracy 0.5", work), ("rate | shape | accuracy 0.9", work)]), output, draws)
    assert len(calls) == 2 and first.items() <= again.items()
    assert json.loads(output.read_text())["cells"] == again
    measure(iter([("rate | shape | accuracy 0.5", work)]), output, Draws(20, 2))
    assert len(calls) == 3
    assert "| rate: shape | Wilson, by cluster | 95.2 | 95.2 | 95.2 | 2 of 2 |" in summary(again)
    assert "| rate: shape | t | 91.0 | 91.0 | 91.0 | 0 of 2 |" in summary(again)
