from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import stdtrit

from codedance_verl.statistics.clusters import ClusterSums, cluster_interval, cluster_rate, sums_by_cluster
from codedance_verl.statistics.intervals import Interval, wilson


def of(numerators: list[float], denominators: list[float]) -> ClusterSums:
    return ClusterSums(np.array(numerators), np.array(denominators))


clusters = st.lists(
    st.integers(1, 5).flatmap(lambda size: st.tuples(st.integers(0, size), st.just(size))), min_size=2, max_size=40
)


def test_a_worked_design_effect() -> None:
    """Three clusters of four answers, 4, 0 and 0 right: as much as two answers.

    Residuals 8/3, -4/3, -4/3; their squares sum to 96/9; times 3/2 by 12^2 is a variance of 1/9. That of 12 independent
    answers is (1/3)(2/3)/12 = 1/54: a design effect of 6.
    """
    sums = of([4, 0, 0], [4, 4, 4])
    assert sums.variance == pytest.approx(1 / 9)
    assert (sums.design_effect, sums.effective_answers) == (pytest.approx(6), pytest.approx(2))
    interval, expected = cluster_interval(sums), wilson(2 / 3, 2, float(stdtrit(2, 0.975)))
    assert interval is not None
    assert interval.low == pytest.approx(expected.low) and interval.high == pytest.approx(expected.high)


def test_single_answers_give_wilsons_interval_with_t() -> None:
    right = [1.0] * 30 + [0.0] * 170
    interval = cluster_interval(of(right, [1.0] * 200))
    plain = wilson(0.15 * 199, 199, float(stdtrit(199, 0.975)))  # the variance has 199 in its denominator
    assert (
        interval is not None and interval.low == pytest.approx(plain.low) and interval.high == pytest.approx(plain.high)
    )


def test_a_ratio_has_the_variance_of_its_simulation() -> None:
    """Rote memorisation by rote memorisation and mastery: composites with neither are no part of it."""
    generator = np.random.default_rng(0)

    def draw() -> ClusterSums:
        kind = generator.choice(3, p=[0.1, 0.3, 0.6], size=300)
        return ClusterSums((kind == 0).astype(float), (kind < 2).astype(float))

    drawn = [draw() for _ in range(3_000)]
    assert np.mean([sums.rate for sums in drawn]) == pytest.approx(0.25, abs=0.004)
    assert np.mean([sums.variance for sums in drawn]) == pytest.approx(np.var([sums.rate for sums in drawn]), rel=0.08)
    assert all(sums.clusters == int(sums.denominators.sum()) for sums in drawn)


def test_clusters_that_are_alike_count_once_each() -> None:
    assert cluster_interval(of([4.0] * 50, [4.0] * 50)) == wilson(50, 50, float(stdtrit(49, 0.975)))
    always_one_in_five = of([1.0] * 50, [5.0] * 50)
    assert always_one_in_five.effective_answers == 50


def test_few_clusters_have_no_interval() -> None:
    assert cluster_interval(of([3.0], [4.0])) is None
    assert cluster_rate(of([3.0, 0.0], [4.0, 0.0])) is not None
    assert cluster_rate(of([0.0, 0.0], [0.0, 0.0])) is None


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="two vectors"):
        ClusterSums(np.ones(3), np.ones(2))


@settings(deadline=None, max_examples=40)
@given(clusters, st.randoms(use_true_random=False))
def test_the_order_of_clusters_does_not_matter(pairs: list[tuple[int, int]], shuffle: Random) -> None:
    shuffled = list(pairs)
    shuffle.shuffle(shuffled)
    one, other = (cluster_interval(of(*map(list, zip(*side, strict=True)))) for side in (pairs, shuffled))
    assert one == pytest.approx(other)


@settings(deadline=None, max_examples=40)
@given(clusters)
def test_right_and_wrong_mirror_each_other(pairs: list[tuple[int, int]]) -> None:
    right, sizes = map(list, zip(*pairs, strict=True))
    interval, mirrored = (cluster_interval(of(side, sizes)) for side in (right, [size - r for r, size in pairs]))
    assert interval is not None and mirrored is not None
    assert mirrored == pytest.approx(Interval(1 - interval.high, 1 - interval.low), abs=1e-9)


@settings(deadline=None, max_examples=40)
@given(clusters)
def test_the_interval_holds_the_rate_and_stays_in_range(pairs: list[tuple[int, int]]) -> None:
    right, sizes = map(list, zip(*pairs, strict=True))
    sums = of(right, sizes)
    interval = cluster_interval(sums)
    assert interval is not None
    assert 0 <= interval.low <= sums.rate + 1e-9 and sums.rate - 1e-9 <= interval.high <= 1


@settings(deadline=None, max_examples=40)
@given(clusters, st.integers(2, 4))
def test_repeating_each_answer_within_its_cluster_adds_nothing(pairs: list[tuple[int, int]], times: int) -> None:
    right, sizes = map(list, zip(*pairs, strict=True))
    once, often = of(right, sizes), of([times * r for r in right], [times * size for size in sizes])
    assert cluster_interval(once) == pytest.approx(cluster_interval(often), abs=1e-9)


@settings(deadline=None, max_examples=40)
@given(clusters, st.integers(2, 4))
def test_more_clusters_of_the_same_kinds_narrow_the_interval(pairs: list[tuple[int, int]], times: int) -> None:
    right, sizes = map(list, zip(*pairs, strict=True))
    few, many = cluster_interval(of(right, sizes)), cluster_interval(of(right * times, sizes * times))
    assert few is not None and many is not None
    assert many.high - many.low < few.high - few.low


def test_rows_are_summed_by_the_name_of_their_cluster() -> None:
    sums = sums_by_cluster(np.array([1.0, 0.0, 1.0, 1.0]), np.ones(4), ["b", "a", "b", "a"])
    assert sums.numerators.tolist() == [1.0, 2.0] and sums.denominators.tolist() == [2.0, 2.0]
