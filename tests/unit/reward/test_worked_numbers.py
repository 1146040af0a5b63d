"""The numbers that the paper and the published code give, by hand to 1e-6, through the whole reward."""

from __future__ import annotations

import numpy as np
import pytest

from codedance_verl.reward.advantage import discounted, token_advantages
from codedance_verl.reward.config import RewardConfig
from codedance_verl.reward.encoding import encode_rewards
from codedance_verl.reward.presets import PAPER, RELEASE
from codedance_verl.reward.terms import score_group
from codedance_verl.types import Grade, RewardTerms
from tests.unit.reward.rollouts import RIGHT, WRONG, trajectory

EIGHTHS = range(9)
SIGMOID = (
    0.680797078,
    0.617574476,
    0.531058579,
    0.422459331,
    0.3,
    0.177540669,
    0.068941421,
    -0.017574476,
    -0.080797078,
)
TANH = (0.782013790, 0.752574127, 0.680797078, 0.531058579, 0.3, 0.068941421, -0.080797078, -0.152574127, -0.182013790)


def group_of(right: int) -> list[Grade]:
    return [RIGHT] * right + [WRONG] * (8 - right)


@pytest.mark.parametrize("right", EIGHTHS)
@pytest.mark.parametrize(("preset", "table"), [(PAPER, SIGMOID), (RELEASE, TANH)], ids=["paper", "release"])
def test_difficulty_and_sequence_term_over_mu(preset: RewardConfig, table: tuple[float, ...], right: int) -> None:
    """One call in every rollout; c is 1.5 with a right answer and 0.5 with a wrong one."""
    grades = group_of(right)
    for term, grade in zip(score_group([trajectory("ok")] * 8, grades, preset), grades, strict=True):
        assert term.difficulty == pytest.approx(table[right], abs=1e-6)
        assert term.sequence == pytest.approx((1.5 if grade.correct else 0.5) * table[right], abs=1e-6)
        assert term.score == pytest.approx(float(grade.correct) + term.sequence, abs=1e-6)


def test_the_other_reading_of_d_in_the_paper() -> None:
    tanh = RewardConfig.from_mapping({"preset": "paper", "difficulty_form": "tanh"})
    found = [score_group([trajectory("ok")] * 8, group_of(right), tanh)[0].difficulty for right in EIGHTHS]
    assert found == pytest.approx(TANH, abs=1e-6)


def test_half_of_the_calls_failing_halves_the_term() -> None:
    terms = score_group([trajectory("ok", "error"), *[trajectory()] * 7], group_of(4), PAPER)
    assert terms[0].sequence == pytest.approx(1.5 * 0.3 / 2, abs=1e-6)
    assert terms[1].sequence == 0


def test_a_wrong_answer_with_a_trivial_call_on_the_hardest_group() -> None:
    (term,) = score_group([trajectory("ok")], [WRONG], RELEASE)
    assert term.score == pytest.approx(0.391006895, abs=1e-6)


@pytest.mark.parametrize("preset", [PAPER, RELEASE], ids=["paper", "release"])
def test_discounted_turn_rewards(preset: RewardConfig) -> None:
    """fail, fail, ok -> -0.6, -0.5, 0; ok, fail -> -0.1, -0.5; the answer 0."""
    rollouts = [trajectory("error", "error", "ok"), trajectory("ok", "error")]
    first, second = score_group(rollouts, [RIGHT, RIGHT], preset)
    g = discounted(np.array([first.turns, (*second.turns, 0.0)]), preset.turn_discount)
    assert g[0].tolist() == pytest.approx([-0.6, -0.5, 0, 0], abs=1e-6)
    assert g[1, :3].tolist() == pytest.approx([-0.1, -0.5, 0], abs=1e-6)


@pytest.mark.parametrize("preset", [PAPER, RELEASE], ids=["paper", "release"])
def test_one_failing_turn_in_a_hundred(preset: RewardConfig) -> None:
    """z = -9.949874 for it and 0.100504 for the 99 others; with weight 0.2 an advantage of -1.989975 and 0.020101."""
    rewards, mask = np.zeros((100, 3), np.float32), np.ones((100, 3), np.int64)
    mask[:, 1] = 0
    for row in range(100):
        turns = (-0.5 if row == 0 else 0.0, 0.0)
        rewards[row] = encode_rewards([(0, 1), (2, 3)], RewardTerms(0, 0, 0, 0, 0.0, turns), 3)
    got = token_advantages(rewards, mask, ["g"] * 100, preset)
    assert got[0, 0] == pytest.approx(-1.989975, abs=1e-6)
    assert got[1:, 0] == pytest.approx(np.full(99, 0.020101), abs=1e-6)
    assert not got[:, 1:].any()


def test_the_weights_of_the_release() -> None:
    """Accuracy + 0.2 format; mathematics 1.2 accuracy + 0.4 format. No call, so nothing else."""
    malformed = trajectory(answer="3</answer><answer>3")
    plain = score_group([trajectory(), malformed], [RIGHT, RIGHT], RELEASE)
    assert [term.score for term in plain] == pytest.approx([1.0, 0.8], abs=1e-6)
