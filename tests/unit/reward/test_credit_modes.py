"""Each way of crediting turns against the formulas, one number at a time, on ragged multi-turn batches."""

from __future__ import annotations

import statistics

import numpy as np
import numpy.typing as npt
import pytest

from codedance_verl.errors import UserError
from codedance_verl.reward.advantage import check_estimator, group_relative, token_advantages
from codedance_verl.reward.config import RewardConfig
from codedance_verl.reward.presets import GTPO, OUTCOME, PAPER, ROBUST
from tests.unit.reward.test_advantage import Row, batch, random_rows

Matrix = npt.NDArray[np.float64]


def normalised(value: float, others: list[float], floor: float, divide_by_std: bool) -> float:
    """(value - mean) / (max(std, floor) + 1e-6), 0 where there is nothing to compare with."""
    if len(others) < 2:
        return 0.0
    centred = value - statistics.fmean(others)
    spread = statistics.stdev(others)
    if not divide_by_std:
        return centred
    return centred / (max(spread, floor) + 1e-6) if spread > 1e-9 else 0.0


def fixed_reference(rows: list[Row], length: int, config: RewardConfig, divide_by_std: bool) -> Matrix:
    result = np.zeros((len(rows), length))
    for index, row in enumerate(rows):
        if row.masked:
            continue
        group = [other.score for other in rows if other.group == row.group and not other.masked]
        sequence = normalised(row.score, group, config.min_group_std, divide_by_std)
        for k, (start, end) in enumerate(row.spans):
            later = [config.turn_discount**n * reward for n, reward in enumerate(row.turns[k:-1])]
            result[index, start:end] = sequence + config.turn_weight * sum(later)
    return result


def returns_of(row: Row, discount: float) -> list[float]:
    rewards = [*row.turns[:-1], row.score]
    return [sum(discount**n * reward for n, reward in enumerate(rewards[k:])) for k in range(len(rewards))]


def returns_reference(rows: list[Row], length: int, config: RewardConfig, divide_by_std: bool) -> Matrix:
    result = np.zeros((len(rows), length))
    for index, row in enumerate(rows):
        if row.masked:
            continue
        members = [other for other in rows if other.group == row.group and not other.masked]
        group = [value for other in members for value in returns_of(other, config.turn_discount)]
        for (start, end), value in zip(row.spans, returns_of(row, config.turn_discount), strict=True):
            result[index, start:end] = normalised(value, group, config.min_group_std, divide_by_std)
    return result


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("divide_by_std", [True, False])
@pytest.mark.parametrize(("preset", "reference"), [(ROBUST, fixed_reference), (GTPO, returns_reference)])
def test_agrees_with_a_slow_reference_on_ragged_batches(
    preset: RewardConfig, reference: object, seed: int, divide_by_std: bool
) -> None:
    rows, length = random_rows(np.random.default_rng(seed), groups=6, size=5, max_turns=6)
    config = preset.replace(turn_discount=(0.0, 0.5, 0.9)[seed % 3], min_group_std=0.8 if seed % 2 else 0.0)
    assert callable(reference)
    expected = reference(rows, length, config, divide_by_std)
    got = token_advantages(*batch(rows, length), config, divide_by_std=divide_by_std)
    np.testing.assert_allclose(got, expected, atol=2e-5)


def test_sum_and_placement_worked_by_hand() -> None:
    """Two rollouts, one right: S = +-0.707; the failed turn of the right one takes half a point, recovery adds 0.2."""
    rows = [
        Row("g", [(0, 2), (3, 4), (6, 9)], 1.0, [-0.5, 0.2, 0.0]),
        Row("g", [(0, 1), (4, 6)], 0.0, [0.0, 0.0]),
    ]
    got = token_advantages(*batch(rows, 10), ROBUST)
    s = 0.5 / (2**-0.5 + 1e-6)
    assert got[0].tolist() == pytest.approx([s - 0.5, s - 0.5, 0, s + 0.2, 0, 0, s, s, s, 0])
    assert got[1].tolist() == pytest.approx([-s, 0, 0, 0, -s, -s, 0, 0, 0, 0])
    assert got.sum() == pytest.approx(6 * s - 2 * 0.5 + 0.2 - 3 * s, abs=1e-5)


def test_turn_returns_worked_by_hand() -> None:
    """GTPO with discount 0.9: fail then right gives G = 0.8, 1; right at once 1; wrong 0. Mean 0.7, std 0.476095."""
    rows = [
        Row("g", [(0, 1), (2, 3)], 1.0, [-0.1, 0.0]),
        Row("g", [(0, 1)], 1.0, [0.0]),
        Row("g", [(0, 1)], 0.0, [0.0]),
    ]
    got = token_advantages(*batch(rows, 3), GTPO)
    assert got[0].tolist() == pytest.approx([0.1 / 0.476095, 0, 0.3 / 0.476095], abs=1e-5)
    assert [got[1, 0], got[2, 0]] == pytest.approx([0.3 / 0.476095, -0.7 / 0.476095], abs=1e-5)


def test_turns_of_another_group_set_no_penalty_with_fixed_scale() -> None:
    rows = [Row("g", [(0, 1), (2, 3)], float(k), [-0.5 * k, 0.0]) for k in range(2)]
    failing = [Row("h", [(0, 1), (2, 3)], 0.0, [-0.5, 0.0]) for _ in range(20)]
    alone = token_advantages(*batch(rows, 3), ROBUST)
    np.testing.assert_array_equal(token_advantages(*batch([*rows, *failing], 3), ROBUST)[:2], alone)
    published = token_advantages(*batch(rows, 3), PAPER)
    assert abs(token_advantages(*batch([*rows, *failing], 3), PAPER)[:2] - published).max() > 0.1


def test_a_good_turn_gets_no_bonus_for_the_failures_of_others_with_fixed_scale() -> None:
    rows = [Row("g", [(0, 1), (2, 3)], 0.0, [-0.5 * (k == 0), 0.0]) for k in range(10)]
    assert (token_advantages(*batch(rows, 3), ROBUST)[1:] == 0).all()
    assert (token_advantages(*batch(rows, 3), PAPER)[1:, 0] > 0.05).all()


def test_outcome_credits_no_turn() -> None:
    rows = [Row("g", [(0, 1), (2, 3)], float(k), [-0.5, 0.0]) for k in range(2)]
    got = token_advantages(*batch(rows, 3), OUTCOME)
    assert (got[:, 0] == got[:, 2]).all()


def test_a_group_that_differs_by_little_gets_little() -> None:
    scores = np.array([1.0, 1.0, 1.0, 0.93])
    everyone, groups = np.ones(4, bool), ["g"] * 4
    large = group_relative(scores, groups, everyone, divide_by_std=True)
    small = group_relative(scores, groups, everyone, divide_by_std=True, min_std=0.25)
    assert large[3] == pytest.approx(-1.5, abs=1e-3)
    assert small[3] == pytest.approx(-0.0525 / 0.25, abs=1e-4)


def test_turn_returns_are_refused_where_rewards_are_added_up() -> None:
    check_estimator({"adv_estimator": "gae"}, ROBUST)
    with pytest.raises(UserError, match=r"algorithm\.adv_estimator=gae: .*returns needs codedance_grpo"):
        check_estimator({"adv_estimator": "gae"}, GTPO)
