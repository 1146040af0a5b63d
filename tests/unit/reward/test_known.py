from __future__ import annotations

import numpy as np
import pytest

from codedance_verl.reward.advantage import turn_advantages
from codedance_verl.reward.config import RewardConfig
from codedance_verl.reward.encoding import decode_rewards, encode_rewards
from codedance_verl.reward.known import group_advantages
from codedance_verl.reward.presets import PRESETS
from codedance_verl.types import RewardTerms


def terms(score: float, turns: tuple[float, ...], masked: bool = False) -> RewardTerms:
    return RewardTerms(accuracy=1, format=0, difficulty=0, sequence=0, score=score, turns=turns, masked=masked)


GROUP = [
    terms(1.0, (0.1, -0.5, 0.0)),
    terms(0.25, (0.0,)),
    terms(-0.5, (-0.25, 0.0)),
    terms(9.0, (0.5, 0.0), masked=True),
]


@pytest.mark.parametrize("credit", ["none", "fixed", "returns"])
@pytest.mark.parametrize("by_std", [True, False])
def test_they_are_those_of_the_estimator(credit: str, by_std: bool) -> None:
    config = RewardConfig.from_mapping({"turn_credit": credit})
    spans = [[(2 * k, 2 * k + 1) for k in range(len(one.turns))] for one in GROUP]
    rewards = np.stack([encode_rewards(own, one, 6) for own, one in zip(spans, GROUP, strict=True)])
    mask = np.array(
        [[int(at % 2 == 0 and at < 2 * len(one.turns) and not one.masked) for at in range(6)] for one in GROUP]
    )
    expected = turn_advantages(decode_rewards(rewards, mask), [0] * 4, config, divide_by_std=by_std)
    for row, found in enumerate(group_advantages(GROUP, config, divide_by_std=by_std)):
        assert found.turns is not None
        wanted = [0.0] * 2 if GROUP[row].masked else expected[row, : len(GROUP[row].turns)]
        assert found.turns == pytest.approx(list(wanted), abs=1e-5)


@pytest.mark.parametrize(("size", "turns"), [(1, (-0.98, -0.04, 1.02)), (4, (-1.15, -0.04, 1.19))])
def test_returns_have_advantages_without_spread_between_rollouts(size: int, turns: tuple[float, ...]) -> None:
    """The figures of docs/reward.md: turns differ by their distance from the end."""
    alike = [terms(1.0, (0.0, 0.0, 0.0))] * size
    for found in group_advantages(alike, PRESETS["gtpo"], divide_by_std=True):
        assert found.turns == pytest.approx(turns, abs=5e-3)


def test_what_rests_on_the_batch_is_not_told() -> None:
    config = RewardConfig.from_mapping({"turn_credit": "batch_z"})
    found = group_advantages(GROUP, config, divide_by_std=True)
    assert [one.turns for one in found] == [None, None, None, (0.0, 0.0)]
    assert found[0].sequence is not None and found[0].sequence > 0 > (found[2].sequence or 0)
