"""Kappa: values of the literature, symmetries, coverage of its interval."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from codedance_verl.statistics.kappa import kappa


def test_worked_examples() -> None:
    found = kappa(20, 5, 10, 15)
    assert found is not None and found.value == pytest.approx(0.4)
    # its standard error by hand: sqrt((0.10972 + 0.10188 - 0.01) / 50) / 0.5
    assert found.interval.low == pytest.approx(0.4 - 1.96 * 0.127, abs=0.02)
    assert found.interval.high == pytest.approx(0.4 + 1.96 * 0.127, abs=0.02)
    other = kappa(45, 15, 25, 15)
    assert other is not None and other.value == pytest.approx(0.1304, abs=1e-4)


def test_values_are_those_of_sklearn() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        first, second = rng.random(60) < 0.7, rng.random(60) < 0.4
        counts = [
            int((a & b).sum()) for a, b in ((first, second), (first, ~second), (~first, second), (~first, ~second))
        ]
        found = kappa(*counts)
        assert found is not None and found.value == pytest.approx(cohen_kappa_score(first, second))


def test_raters_and_answers_may_change_places() -> None:
    found = kappa(30, 4, 7, 9)
    assert found == kappa(30, 7, 4, 9)
    turned = kappa(9, 7, 4, 30)
    assert found is not None and turned is not None and turned.value == pytest.approx(found.value)
    assert turned.interval == pytest.approx(found.interval)


def test_there_is_none_where_all_are_alike_or_none_is_there() -> None:
    assert kappa(0, 0, 0, 0) is None
    assert kappa(12, 0, 0, 0) is None and kappa(0, 0, 0, 12) is None


def test_full_agreement_on_few_items_is_not_certain() -> None:
    few, many = kappa(10, 0, 0, 10), kappa(100, 0, 0, 100)
    assert few is not None and many is not None
    assert few.value == many.value == few.interval.high == 1.0
    assert few.interval.low < 0.85 < many.interval.low < 1.0


@pytest.mark.parametrize(("right", "errors"), [(0.5, (0.02, 0.02)), (0.75, (0.05, 0.0)), (0.9, (0.1, 0.1))])
@pytest.mark.parametrize("items", [50, 200])
def test_intervals_hold_the_truth(right: float, errors: tuple[float, float], items: int) -> None:
    """Raters that err independently of each other about items of which a share is right."""

    def chance(first: bool, second: bool) -> float:
        def says(says_right: bool, is_right: bool, error: float) -> float:
            return 1 - error if says_right == is_right else error

        return sum(
            weight * says(first, truth, errors[0]) * says(second, truth, errors[1])
            for truth, weight in ((True, right), (False, 1 - right))
        )

    cells = [chance(True, True), chance(True, False), chance(False, True), chance(False, False)]
    one, two = cells[0] + cells[1], cells[0] + cells[2]
    by_chance = one * two + (1 - one) * (1 - two)
    truth = (cells[0] + cells[3] - by_chance) / (1 - by_chance)
    drawn = [kappa(*counts) for counts in np.random.default_rng(1).multinomial(items, cells, 2_000).tolist()]
    held = [found.interval.low <= truth <= found.interval.high for found in drawn if found is not None]
    assert 0.92 <= np.mean(held) <= 0.995
