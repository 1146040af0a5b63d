from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codedance_verl.errors import UserError
from codedance_verl.statistics.clusters import ClusterSums, sums_by_cluster
from codedance_verl.statistics.comparison import Conditions, Evaluation, compare
from codedance_verl.statistics.intervals import Interval
from codedance_verl.statistics.items import Item, Valued, all_right, of_clusters
from codedance_verl.statistics.pairs import PairedCounts, mcnemar, newcombe_pairs
from codedance_verl.tasks.countbench import COUNTBENCH
from tests.unit.tasks.files import parquet, struct

CONDITIONS = Conditions(
    benchmark="vstar",
    revision="d9ae62c",
    prompt="1f0c",
    scorer="letter 1",
    judge="",
    control="",
    temperature=0.0,
    top_p=1.0,
    samples=1,
    attempts=1,
    max_turns=7,
    max_tokens=8192,
    time_limit_s=600.0,
    max_pixels=1_000_000,
)

Rows = list[list[float | None]]


def evaluation(model: str, rows: Rows, conditions: Conditions = CONDITIONS) -> Evaluation:
    """Clusters of values; None was not measured."""
    return Evaluation(
        model,
        conditions,
        tuple(
            Item(f"{row}.{place}", f"q{row}", value, "endpoint failure" if value is None else "")
            for row, values in enumerate(rows)
            for place, value in enumerate(values)
        ),
    )


def singles(both: int, only_a: int, only_b: int, neither: int) -> tuple[Evaluation, Evaluation]:
    kinds = [(1.0, 1.0)] * both + [(1.0, 0.0)] * only_a + [(0.0, 1.0)] * only_b + [(0.0, 0.0)] * neither
    return evaluation("A", [[a] for a, _ in kinds]), evaluation("B", [[b] for _, b in kinds])


pairs_of_rows = st.lists(
    st.integers(1, 4).flatmap(
        lambda size: st.tuples(*[st.lists(st.sampled_from([0.0, 1.0, None]), min_size=size, max_size=size)] * 2)
    ),
    min_size=6,
    max_size=25,
).filter(lambda rows: sum(None not in a and None not in b for a, b in rows) >= 2)


def test_single_questions_get_mcnemars_test_and_newcombes_interval() -> None:
    found = compare(*singles(120, 25, 8, 38))
    assert (found.items, found.clusters) == (191, 191)
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
    a = evaluation("A", [[1.0] * 4] * 9 + [[0.0] * 4] * 3 + [[1.0] * 4] * 20)
    b = evaluation("B", [[0.0] * 4] * 9 + [[1.0] * 4] * 3 + [[1.0] * 4] * 20)
    found = compare(a, b)
    assert found.p.exact == pytest.approx(mcnemar(9, 3).exact) and found.table is None and found.newcombe is None
    assert found.power.design_effect == pytest.approx(4, rel=0.05)
    assert "over 128 items in 32 clusters" in found.sentence
    composite = compare(a, b, all_right)
    assert composite.table == PairedCounts(20, 9, 3, 0) and composite.difference == found.difference
    assert composite.interval == pytest.approx(found.interval)


def test_half_points_of_composites_are_compared() -> None:
    """WeMath gives half a point for steps that are right where the whole is not."""

    @of_clusters
    def score(values: Mapping[str, float]) -> tuple[float, float]:
        return (0.5 if sum(values.values()) == 1 else float(sum(values.values()) == 2)), 1.0

    a, b = ([[1.0, 1.0]] * 10 + [[1.0, 0.0]] * 10, [[0.0, 0.0]] * 2 + [[1.0, 0.0]] * 18)
    found = compare(evaluation("A", a), evaluation("B", b), score)
    assert found.rate_a == 0.75 and found.rate_b == 0.45 and found.table is None
    assert found.p.exact == pytest.approx(2 / 2**10)


def test_unequal_conditions_are_refused_line_by_line() -> None:
    a, b = singles(5, 3, 2, 1)
    b = replace(b, conditions=replace(CONDITIONS, max_turns=10, judge="qwen 7f"))
    with pytest.raises(UserError) as caught:
        compare(a, b)
    assert str(caught.value).splitlines() == [
        "A and B differ in judge: '' and 'qwen 7f'; force the comparison",
        "A and B differ in max_turns: 7 and 10; force the comparison",
    ]
    forced = compare(a, b, force=True)
    assert forced.unlike == ("judge: '' and 'qwen 7f'", "max_turns: 7 and 10")
    assert forced.sentence.endswith("Forced, although they differ in judge: '' and 'qwen 7f'; max_turns: 7 and 10.")


def test_unequal_items_are_refused_and_left_out_by_force() -> None:
    a, b = singles(5, 3, 2, 1)
    fewer = replace(b, items=b.items[2:])
    with pytest.raises(UserError, match=r"items: 2 that A alone has, such as 0\.0"):
        compare(a, fewer)
    assert compare(a, fewer, force=True).items == 9
    moved = replace(b, items=(replace(b.items[0], cluster="q1"), *b.items[1:]))
    with pytest.raises(UserError, match="clusters: 1 items are in others"):
        compare(a, moved)


def test_rows_of_another_order_are_not_paired_by_their_numbers(tmp_path: Path) -> None:
    rows = [{"image": struct(n), "question": f"How many cups are in {n}?", "number": n} for n in range(4)]

    def measured(model: str, order: list[dict[str, Any]]) -> Evaluation:
        folder = parquet(tmp_path / model / "test.parquet", order).parent
        keys = [item.key for item in COUNTBENCH.items(folder)]
        return Evaluation(model, CONDITIONS, tuple(Item(key, key, 1.0) for key in keys))

    a = measured("A", rows)
    assert compare(a, measured("B", rows)).items == 4
    with pytest.raises(UserError, match="items: 4 that A alone has, such as 0#"):
        compare(a, measured("C", rows[::-1]))


def test_items_that_one_side_did_not_measure_are_left_out_and_bounded() -> None:
    a = evaluation("A", [[1.0], [1.0], [1.0], [0.0], [None]])
    b = evaluation("B", [[1.0], [0.0], [None], [0.0], [1.0]])
    found = compare(a, b)
    assert found.items == 3 and found.not_measured == (1, 1)
    assert found.difference == pytest.approx(1 / 3)
    # all five: A 3 or 4 right, B 2 or 3
    assert found.bounds == pytest.approx(Interval(0.0, 2 / 5))
    assert "(1 of A, 1 of B); they could move the difference to +0.0 or +40.0." in found.sentence


def test_figures_that_choose_their_questions_are_refused() -> None:
    @of_clusters
    def of_the_right(values: Mapping[str, float]) -> tuple[float, float]:
        return 0.0, sum(values.values())

    with pytest.raises(UserError, match="counts other questions"):
        compare(*singles(5, 3, 2, 1), of_the_right)


def test_a_mean_of_means_is_compared_with_its_weights() -> None:
    """Two categories of 8 and 2 questions count alike: a lead in the small one weighs as much as four in the other."""

    def figure(items: Sequence[Valued]) -> ClusterSums:
        weights = [1 / 16 if int(item.cluster[1:]) < 8 else 1 / 4 for item in items]
        values = [weight * item.value for weight, item in zip(weights, items, strict=True)]
        return sums_by_cluster(values, weights, [item.cluster for item in items])

    a = evaluation("A", [[1.0]] + [[0.0]] * 7 + [[1.0], [1.0]])
    b = evaluation("B", [[0.0], [1.0], [1.0]] + [[0.0]] * 7)
    found = compare(a, b, figure)
    assert (found.rate_a, found.rate_b, found.difference) == pytest.approx((9 / 16, 2 / 16, 7 / 16))
    assert found.items == found.power.items == 10
    # +4 +4 +1 -1 -1 sixteenths: 16 of 32 exchanges keep both fours together, 2 of these have all ones against them
    assert found.p.exact == pytest.approx(14 / 32)


def test_too_little_is_refused() -> None:
    with pytest.raises(UserError, match="no question"):
        compare(evaluation("A", [[1.0], [None]]), evaluation("B", [[None], [0.0]]))
    with pytest.raises(UserError, match="fewer than two"):
        compare(evaluation("A", [[1.0]]), evaluation("B", [[0.0]]))


@settings(deadline=None, max_examples=15)
@given(pairs_of_rows)
def test_exchanging_the_models_changes_the_sign_and_nothing_else(rows: list[tuple[list[float | None], ...]]) -> None:
    a, b = (evaluation(name, [pair[side] for pair in rows]) for side, name in enumerate("AB"))
    one, other = compare(a, b), compare(b, a)
    assert other.difference == pytest.approx(-one.difference) and other.p == one.p and other.seen == one.seen
    for mine, its in ((one.interval, other.interval), (one.bootstrap, other.bootstrap), (one.bounds, other.bounds)):
        assert its == pytest.approx(Interval(-mine.high, -mine.low), abs=1e-9)


@settings(deadline=None, max_examples=15)
@given(pairs_of_rows, st.randoms(use_true_random=False))
def test_the_order_of_items_does_not_matter(rows: list[tuple[list[float | None], ...]], shuffle: Random) -> None:
    a, b = (evaluation(name, [pair[side] for pair in rows]) for side, name in enumerate("AB"))
    items = list(a.items)
    shuffle.shuffle(items)
    assert compare(replace(a, items=tuple(items)), b) == compare(a, b)


@settings(deadline=None, max_examples=15)
@given(pairs_of_rows.filter(lambda rows: any(a != b for a, b in rows if None not in a and None not in b)))
def test_more_clusters_of_the_same_kinds_make_the_difference_surer(rows: list[tuple[list[float | None], ...]]) -> None:
    def both(times: int) -> tuple[Evaluation, Evaluation]:
        a, b = (evaluation(name, [pair[side] for pair in rows] * times) for side, name in enumerate("AB"))
        return a, b

    few, many = compare(*both(1)), compare(*both(4))
    assert many.difference == pytest.approx(few.difference)
    assert many.interval.high - many.interval.low < few.interval.high - few.interval.low


def test_a_planted_difference_is_found_as_often_as_stated_and_none_without_one() -> None:
    """300 comparisons of 1,000 questions, a fifth of which one model alone gets right; standard error 2.8 points."""
    generator = np.random.default_rng(1)

    def share(difference: float) -> float:
        kinds = generator.choice(4, p=[0.4, 0.1 + difference / 2, 0.1 - difference / 2, 0.4], size=(300, 1000))
        counts = [np.bincount(kind, minlength=4).tolist() for kind in kinds]
        return float(np.mean([mcnemar(only_a, only_b).exact <= 0.05 for _, only_a, only_b, _ in counts]))

    a, b = singles(400, 120, 80, 400)
    smallest = compare(a, b).power.smallest
    assert smallest is not None and share(smallest) == pytest.approx(0.8, abs=0.08)
    assert share(0.0) <= 0.08
