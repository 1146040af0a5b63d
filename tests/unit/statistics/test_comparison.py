from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codedance_verl.errors import UserError
from codedance_verl.statistics.clusters import ClusterSums
from codedance_verl.statistics.comparison import Comparison, Side, compare
from codedance_verl.statistics.intervals import Interval
from codedance_verl.statistics.pairs import PairedCounts, mcnemar, newcombe_pairs

Rows = Sequence[Sequence[float | None]]
Score = Callable[[list[float]], tuple[float, float]]


def mean(values: list[float]) -> tuple[float, float]:
    return sum(values), len(values)


def all_right(values: list[float]) -> tuple[float, float]:
    return float(min(values) == 1), 1.0


def pair(a: Rows, b: Rows, score: Score = mean) -> tuple[Side, Side]:
    """Sides of clusters of values; None was not measured."""
    whole = [None not in left and None not in right for left, right in zip(a, b, strict=True)]

    def sums(rows: Rows, worth: float) -> ClusterSums:
        scores = [score([worth if value is None else value for value in row]) for row in rows]
        return ClusterSums(np.array([one for one, _ in scores]), np.array([other for _, other in scores]))

    def side(model: str, rows: Rows) -> Side:
        wrong = sums(rows, 0.0)
        measured = ClusterSums(wrong.numerators[whole], wrong.denominators[whole])
        return Side(model, measured, wrong, sums(rows, 1.0), sum(value is None for row in rows for value in row))

    return side("A", a), side("B", b)


def singles(both: int, only_a: int, only_b: int, neither: int) -> tuple[Side, Side]:
    kinds = [(1.0, 1.0)] * both + [(1.0, 0.0)] * only_a + [(0.0, 1.0)] * only_b + [(0.0, 0.0)] * neither
    return pair([[a] for a, _ in kinds], [[b] for _, b in kinds])


pairs_of_rows = st.lists(
    st.integers(1, 4).flatmap(
        lambda size: st.tuples(*[st.lists(st.sampled_from([0.0, 1.0, None]), min_size=size, max_size=size)] * 2)
    ),
    min_size=6,
    max_size=25,
).filter(lambda rows: sum(None not in a and None not in b for a, b in rows) >= 2)


def compared(rows: list[tuple[list[float | None], ...]], times: int = 1) -> Comparison:
    return compare(*pair(*([row[side] for row in rows] * times for side in (0, 1))))


def test_single_questions_get_mcnemars_test_and_newcombes_interval() -> None:
    found = compare(*singles(120, 25, 8, 38))
    assert (found.cases, found.clusters) == (191, 191)
    assert found.table == PairedCounts(120, 25, 8, 38)
    assert found.p == mcnemar(25, 8)
    assert found.newcombe == newcombe_pairs(found.table)
    assert found.difference == pytest.approx(17 / 191) and found.seen
    assert found.interval.low == pytest.approx(found.newcombe.low, abs=0.006)
    assert found.bootstrap.low == pytest.approx(found.interval.low, abs=0.012)
    back = compare(*reversed(singles(120, 25, 8, 38)))
    assert back.sentence == found.sentence  # the better one comes first
    assert found.sentence.startswith("A is 8.9 points better than B (+3.1 to +15.1) over 191 items, exact p = 0.0046.")


def test_what_is_not_seen_is_said_with_what_could_be() -> None:
    found = compare(*singles(140, 14, 11, 26))
    assert not found.seen
    assert found.sentence.startswith("No difference between A and B is seen: A less B is +1.6 points (")
    assert found.power.sentence in found.sentence and found.power.discordance == pytest.approx(25 / 191)


def test_clusters_that_move_as_one_count_as_one() -> None:
    """Twelve questions in four orders, won or lost as a whole: 48 items, and the p-value of 12."""
    a = [[1.0] * 4] * 9 + [[0.0] * 4] * 3 + [[1.0] * 4] * 20
    b = [[0.0] * 4] * 9 + [[1.0] * 4] * 3 + [[1.0] * 4] * 20
    found = compare(*pair(a, b))
    assert found.p.exact == pytest.approx(mcnemar(9, 3).exact) and found.table is None and found.newcombe is None
    assert found.power.design_effect == pytest.approx(4, rel=0.05)
    assert "over 128 items in 32 clusters" in found.sentence
    composite = compare(*pair(a, b, all_right))
    assert composite.table == PairedCounts(20, 9, 3, 0) and composite.difference == found.difference
    assert composite.interval == pytest.approx(found.interval)


def test_half_points_of_composites_are_compared() -> None:
    """WeMath gives half a point for steps that are right where the whole is not."""

    def score(values: list[float]) -> tuple[float, float]:
        return (0.5 if sum(values) == 1 else float(sum(values) == 2)), 1.0

    a, b = ([[1.0, 1.0]] * 10 + [[1.0, 0.0]] * 10, [[0.0, 0.0]] * 2 + [[1.0, 0.0]] * 18)
    found = compare(*pair(a, b, score))
    assert found.rate_a == 0.75 and found.rate_b == 0.45 and found.table is None
    assert found.p.exact == pytest.approx(2 / 2**10)


def test_what_differs_is_said() -> None:
    found = compare(*singles(5, 3, 2, 1), unlike=("judge: null -> qwen", "limits.max_turns: 7 -> 10"))
    assert found.sentence.endswith("Forced, although they differ in judge: null -> qwen; limits.max_turns: 7 -> 10.")


def test_items_that_one_side_did_not_measure_are_left_out_and_bounded() -> None:
    found = compare(*pair([[1.0], [1.0], [1.0], [0.0], [None]], [[1.0], [0.0], [None], [0.0], [1.0]]))
    assert found.cases == 3 and found.not_measured == (1, 1)
    assert found.difference == pytest.approx(1 / 3)
    # all five: A 3 or 4 right, B 2 or 3
    assert found.bounds == pytest.approx(Interval(0.0, 2 / 5))
    assert (found.headline_a, found.headline_b) == (3 / 5, 2 / 5)
    assert "(1 of A, 1 of B); it could move the difference to +0.0 or +40.0." in found.sentence
    assert "Counted as wrong, as in the headlines, it makes 60.0 % and 40.0 %." in found.sentence


def test_a_figure_that_can_fall_is_higher_and_not_better() -> None:
    a, b = (replace(side, right=None, not_measured=1) for side in singles(5, 25, 2, 1))
    found = compare(a, b)
    assert found.bounds is None and "points higher than B" in found.sentence
    assert "it could move the difference either way." in found.sentence


def test_figures_that_choose_their_questions_are_refused() -> None:
    with pytest.raises(UserError, match="counts other questions"):
        compare(*pair([[1.0]] * 3, [[0.0]] * 3, lambda values: (0.0, sum(values))))


def test_rounding_of_weights_leaves_the_table() -> None:
    """Weights of a mean of means over equal halves are 1 but for rounding."""
    a, b = singles(7, 6, 2, 1)
    third = 1 / 3 + 1 / 3 + 1 / 3 - 1e-13

    def scaled(side: Side) -> Side:
        return replace(side, measured=ClusterSums(side.measured.numerators * third, side.measured.denominators * third))

    found = compare(scaled(a), scaled(b))
    assert found.table == PairedCounts(7, 6, 2, 1) and found.p == mcnemar(6, 2)
    weighted = replace(a, measured=ClusterSums(a.measured.numerators * 1.01, a.measured.denominators * 1.01))
    other = replace(b, measured=ClusterSums(b.measured.numerators * 1.01, b.measured.denominators * 1.01))
    assert compare(weighted, other).table is None


def test_a_mean_of_means_is_compared_with_its_weights() -> None:
    """Two categories of 8 and 2 questions count alike: a lead in the small one weighs as much as four in the other."""
    weights = np.array([1 / 16] * 8 + [1 / 4] * 2) * 10

    def side(model: str, values: list[float]) -> Side:
        sums = ClusterSums(weights * values, weights)
        return Side(model, sums, sums, sums, 0)

    found = compare(side("A", [1.0] + [0.0] * 7 + [1.0, 1.0]), side("B", [0.0, 1.0, 1.0] + [0.0] * 7))
    assert (found.rate_a, found.rate_b, found.difference) == pytest.approx((9 / 16, 2 / 16, 7 / 16))
    assert found.cases == found.power.items == 10
    # +4 +4 +1 -1 -1 sixteenths: 16 of 32 exchanges keep both fours together, 2 of these have all ones against them
    assert found.p.exact == pytest.approx(14 / 32)


def test_too_little_is_refused() -> None:
    with pytest.raises(UserError, match="fewer than two"):
        compare(*pair([[1.0], [None]], [[None], [0.0]]))
    with pytest.raises(UserError, match="fewer than two"):
        compare(*pair([[1.0]], [[0.0]]))


@settings(deadline=None, max_examples=15)
@given(pairs_of_rows)
def test_exchanging_the_models_changes_the_sign_and_nothing_else(rows: list[tuple[list[float | None], ...]]) -> None:
    one, other = compared(rows), compared([row[::-1] for row in rows])
    assert other.difference == pytest.approx(-one.difference) and other.p == one.p and other.seen == one.seen
    assert one.bounds is not None and other.bounds is not None
    for mine, its in ((one.interval, other.interval), (one.bootstrap, other.bootstrap), (one.bounds, other.bounds)):
        assert its == pytest.approx(Interval(-mine.high, -mine.low), abs=1e-9)


@settings(deadline=None, max_examples=15)
@given(pairs_of_rows.filter(lambda rows: any(a != b for a, b in rows if None not in a and None not in b)))
def test_more_clusters_of_the_same_kinds_make_the_difference_surer(rows: list[tuple[list[float | None], ...]]) -> None:
    few, many = compared(rows), compared(rows, 4)
    assert many.difference == pytest.approx(few.difference)
    assert many.interval.high - many.interval.low < few.interval.high - few.interval.low


def test_a_planted_difference_is_found_as_often_as_stated_and_none_without_one() -> None:
    """300 comparisons of 1,000 questions, a fifth of which one model alone gets right; standard error 2.8 points."""
    generator = np.random.default_rng(1)

    def share(difference: float) -> float:
        kinds = generator.choice(4, p=[0.4, 0.1 + difference / 2, 0.1 - difference / 2, 0.4], size=(300, 1000))
        counts = [np.bincount(kind, minlength=4).tolist() for kind in kinds]
        return float(np.mean([mcnemar(only_a, only_b).exact <= 0.05 for _, only_a, only_b, _ in counts]))

    smallest = compare(*singles(400, 120, 80, 400)).power.smallest
    assert smallest is not None and share(smallest) == pytest.approx(0.8, abs=0.08)
    assert share(0.0) <= 0.08
