from __future__ import annotations

import math

import pytest

from codedance_verl.reward.advantage import group_advantages
from codedance_verl.reward.config import RewardConfig
from codedance_verl.reward.presets import PRESETS
from codedance_verl.types import RewardTerms


def terms(score: float, turns: tuple[float, ...], masked: bool = False) -> RewardTerms:
    return RewardTerms(accuracy=1, format=0, difficulty=0, sequence=0, score=score, turns=turns, masked=masked)


GROUP = [
    terms(1.0, (0.25, -0.5, 0.0)),
    terms(0.25, (0.0,)),
    terms(-0.5, (-0.25, 0.0)),
    terms(9.0, (0.5, 0.0, 0.0, 0.0), masked=True),
]
"""Scores 1, 0.25 and -0.5 count: their mean is 0.25, their standard deviation 0.75."""


def config(credit: str, discount: float = 0.5) -> RewardConfig:
    return RewardConfig.from_mapping({"turn_credit": credit, "turn_discount": discount, "turn_weight": 2.0})


@pytest.mark.parametrize(("by_std", "unit"), [(True, 1.0), (False, 0.75)])
def test_without_turn_credit_every_turn_has_the_advantage_of_its_rollout(by_std: bool, unit: float) -> None:
    found = group_advantages(GROUP, config("none"), divide_by_std=by_std)
    assert [one.sequence for one in found] == pytest.approx([unit, 0, -unit, 0], abs=1e-5)
    assert found[0].turns == pytest.approx((unit, unit, unit), abs=1e-5)
    assert found[1].turns == pytest.approx((0.0,))
    assert found[2].turns == pytest.approx((-unit, -unit), abs=1e-5)
    assert found[3].turns == (0.0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize(("by_std", "unit"), [(True, 1.0), (False, 0.75)])
def test_fixed_credit_adds_weighted_discounted_turn_rewards(by_std: bool, unit: float) -> None:
    """g of the first rollout is 0.25 - 0.5 x 0.5 = 0, then -0.5, then 0; of the third -0.25, then 0."""
    found = group_advantages(GROUP, config("fixed"), divide_by_std=by_std)
    assert found[0].turns == pytest.approx((unit, unit - 1.0, unit), abs=1e-5)
    assert found[1].turns == pytest.approx((0.0,))
    assert found[2].turns == pytest.approx((-unit - 0.5, -unit), abs=1e-5)
    assert found[3].turns == (0.0, 0.0, 0.0, 0.0)


def test_returns_are_normalised_over_the_turns_of_the_group() -> None:
    """G of the first rollout is 0.25, 0, 1, of the second 0.25, of the third -0.5, -0.5: mean 1/12 over six turns."""
    found = group_advantages(GROUP, config("returns"), divide_by_std=False)
    mean = 0.5 / 6
    assert found[0].turns == pytest.approx((0.25 - mean, 0.0 - mean, 1.0 - mean))
    assert found[1].turns == pytest.approx((0.25 - mean,))
    assert found[2].turns == pytest.approx((-0.5 - mean, -0.5 - mean))
    assert found[3].turns == (0.0, 0.0, 0.0, 0.0)
    assert [one.sequence for one in found] == [None] * 4
    std = math.sqrt(sum((value - mean) ** 2 for value in (0.25, 0.0, 1.0, 0.25, -0.5, -0.5)) / 5)
    divided = group_advantages(GROUP, config("returns"), divide_by_std=True)
    assert divided[0].turns == pytest.approx(((0.25 - mean) / std, -mean / std, (1.0 - mean) / std), abs=1e-5)


@pytest.mark.parametrize(("size", "turns"), [(1, (-0.98, -0.04, 1.02)), (4, (-1.15, -0.04, 1.19))])
def test_returns_have_advantages_without_spread_between_rollouts(size: int, turns: tuple[float, ...]) -> None:
    """The figures of docs/reward.md: turns differ by their distance from the end."""
    alike = [terms(1.0, (0.0, 0.0, 0.0))] * size
    for found in group_advantages(alike, PRESETS["gtpo"], divide_by_std=True):
        assert found.turns == pytest.approx(turns, abs=5e-3)


def test_advantages_that_rest_on_the_batch_are_left_out() -> None:
    found = group_advantages(GROUP, config("batch_z"), divide_by_std=True)
    assert [one.turns for one in found] == [None, None, None, (0.0, 0.0, 0.0, 0.0)]
    assert [one.sequence for one in found] == pytest.approx([1, 0, -1, 0], abs=1e-5)


@pytest.mark.parametrize("credit", ["none", "fixed", "returns", "batch_z"])
def test_a_group_of_masked_rollouts_has_zeros(credit: str) -> None:
    masked = [terms(0.0, (), masked=True), terms(0.0, (0.0, 0.0), masked=True)]
    found = group_advantages(masked, config(credit), divide_by_std=True)
    assert [one.turns for one in found] == [(), (0.0, 0.0)]
