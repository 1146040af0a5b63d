from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codedance_verl.errors import UserError
from codedance_verl.statistics.clusters import ClusterSums, cluster_interval
from codedance_verl.statistics.tool_use import UseCounts, accuracy_by_limit, right_within, use_calibration


def counts(difficulty: list[float], use: list[float], answers: int = 4) -> UseCounts:
    wrong, used, all_of = np.array(difficulty) * answers, np.array(use) * answers, np.full(len(use), float(answers))
    return UseCounts(all_of - wrong, all_of, used, all_of)


def test_use_is_counted_by_difficulty() -> None:
    found = use_calibration(counts([0.0, 0.0, 0.25, 0.5, 1.0, 1.0], [0.0, 0.5, 0.5, 1.0, 1.0, 0.5]))
    assert [item.questions for item in found.bins] == [2, 1, 1, 2]
    assert [item.use.value for item in found.bins if item.use] == [0.25, 0.5, 1.0, 0.75]
    # weights 0.25, 0.5, 1, 1 on 0.5, 1, 1, 0.5
    assert found.needed is not None and found.needed.value == pytest.approx((0.125 + 0.5 + 1 + 0.5) / 2.75)
    assert found.not_needed is not None
    assert found.not_needed.value == pytest.approx((0.0 + 0.5 + 0.75 * 0.5 + 0.5 * 1.0) / 3.25)
    # 13 pairs of different difficulty, by the harder one from the third question on; ties count half
    assert found.ranking == pytest.approx((1.5 + 3 + 3.5 + 2) / 13)


def test_perfect_and_blind_use() -> None:
    difficulty = [0.0, 0.25, 0.75, 1.0] * 5
    perfect = use_calibration(counts(difficulty, difficulty))
    blind = use_calibration(counts(difficulty, [0.5] * 20))
    assert perfect.ranking == 1.0 and blind.ranking == 0.5
    assert blind.needed is not None and blind.not_needed is not None
    assert blind.needed.value == pytest.approx(blind.not_needed.value) == pytest.approx(0.5)
    assert use_calibration(counts([1.0] * 4, [0.5] * 4)).ranking is None
    assert use_calibration(counts([1.0] * 4, [0.5] * 4)).not_needed is None


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=30))
def test_the_ranking_is_that_of_all_pairs(rows: list[tuple[int, int]]) -> None:
    found = use_calibration(counts([wrong / 4 for wrong, _ in rows], [used / 4 for _, used in rows])).ranking
    pairs = [(one, other) for one in rows for other in rows if one[0] > other[0]]
    points = [1.0 if one[1] > other[1] else 0.5 if one[1] == other[1] else 0.0 for one, other in pairs]
    assert found == (pytest.approx(sum(points) / len(points)) if points else None)


def test_clusters_widen_the_interval() -> None:
    alone = counts([1.0] * 40, [1.0, 0.0] * 20)
    names = tuple(str(number // 2 % 2 + number % 2 * 2) for number in range(40))  # use is alike within each
    together = UseCounts(alone.right_without, alone.answers_without, alone.used, alone.answers, names)
    one, other = use_calibration(alone).needed, use_calibration(together).needed
    assert one is not None and other is not None and one.interval is not None and other.interval is not None
    assert (one.clusters, other.clusters) == (40, 4)
    assert other.interval.high - other.interval.low > 1.5 * (one.interval.high - one.interval.low)


def test_right_answers_add_up_over_turns() -> None:
    points = right_within([1, 1, 2, 4, None, 4], np.array([1.0, 0.0, 1.0, 1.0, 0.0, 1.0]))
    assert [point.turns for point in points] == [1, 2, 3, 4]
    assert [point.answered for point in points] == pytest.approx([2 / 6, 3 / 6, 3 / 6, 5 / 6])
    assert [point.right.value for point in points] == pytest.approx([1 / 6, 2 / 6, 2 / 6, 4 / 6])
    assert right_within([None, None], np.zeros(2)) == ()


def test_limits_are_compared_with_the_next_smaller_one() -> None:
    ones = np.ones(50)
    runs = {
        7: ClusterSums(np.repeat([1.0, 0.0], [35, 15]), ones),
        1: ClusterSums(np.repeat([1.0, 0.0], [20, 30]), ones),
    }
    first, second = accuracy_by_limit(runs)
    assert (first.max_turns, first.gain, first.gain_interval) == (1, None, None)
    assert second.max_turns == 7 and second.gain == pytest.approx(0.3)
    assert second.gain_interval is not None and second.gain_interval.low > 0.15
    assert second.accuracy.interval == cluster_interval(runs[7])
    with pytest.raises(UserError, match="max_turns=3"):
        accuracy_by_limit({3: ClusterSums(np.zeros(2), np.zeros(2))})
