from __future__ import annotations

import math

import pytest

from codedance_verl.reward.config import RewardConfig
from codedance_verl.reward.difficulty import DifficultyForm
from codedance_verl.reward.terms import does_something, score_group, success_rate, turn_rewards
from codedance_verl.types import FinishReason, Trajectory
from tests.unit.reward.rollouts import RIGHT, UNGRADED, WRONG, trajectory

PAPER = RewardConfig()


def sigmoid_d(mu: float) -> float:
    return 1 / (1 + math.exp(-4 * (0.5 - mu))) - 0.2


def test_a_group_worked_by_hand() -> None:
    rollouts = [trajectory("ok"), trajectory("error", "ok"), trajectory(), trajectory("ok", answer=None)]
    terms = score_group(rollouts, [RIGHT, WRONG, RIGHT, WRONG], PAPER)
    d = sigmoid_d(0.5)
    assert [term.difficulty for term in terms] == pytest.approx([d] * 4)
    assert [term.accuracy for term in terms] == [1, 0, 1, 0]
    assert [term.format for term in terms] == [0, 0, 0, -1]
    assert [term.sequence for term in terms] == pytest.approx([1.5 * d, 0.5 * d / 2, 0, 0.5 * d])
    assert [term.score for term in terms] == pytest.approx([1 + 1.5 * d, 0.25 * d, 1, 0.5 * d - 0.2])
    assert [term.turns for term in terms] == [(0, 0), (-0.5, 0, 0), (0,), (0,)]
    assert not any(term.masked for term in terms)


def test_a_wrong_answer_with_one_call_on_the_hardest_group() -> None:
    config = RewardConfig(difficulty_form=DifficultyForm.TANH)
    (term,) = score_group([trajectory("ok")], [WRONG], config)
    assert term.sequence == pytest.approx(0.391, abs=1e-3)


def test_easy_groups_charge_calls() -> None:
    called, direct = score_group([trajectory("ok"), trajectory()], [RIGHT, RIGHT], PAPER)
    assert called.sequence < 0 == direct.sequence


def test_masked_rollouts_leave_the_accuracy_of_their_group_alone() -> None:
    faulty = trajectory("ok", answer=None, finish=FinishReason.INFRASTRUCTURE)
    rollouts = [trajectory("ok"), trajectory("ok"), faulty, trajectory()]
    terms = score_group(rollouts, [RIGHT, RIGHT, WRONG, UNGRADED], PAPER)
    assert [term.masked for term in terms] == [False, False, True, True]
    assert terms[0].difficulty == pytest.approx(sigmoid_d(1.0))
    assert terms[2].score == terms[3].score == 0
    assert terms[2].turns == (0,)


def test_a_group_of_masked_rollouts_only() -> None:
    terms = score_group([trajectory(), trajectory()], [UNGRADED, UNGRADED], PAPER)
    assert all(term.masked and term.score == 0 for term in terms)


def test_one_grade_for_each_trajectory() -> None:
    with pytest.raises(ValueError, match="2 trajectories came with 1 grades"):
        score_group([trajectory(), trajectory()], [RIGHT], PAPER)


@pytest.mark.parametrize(
    ("rollout", "rate"),
    [
        (trajectory(), 0.0),
        (trajectory("ok"), 1.0),
        (trajectory("no_output"), 1.0),
        (trajectory("error", "timeout", "killed", "ok"), 0.25),
        (trajectory("rejected", "ok"), 1.0),
        (trajectory("rejected"), 0.0),
        (trajectory("no_output", codes=("# only a comment",)), 0.0),
        (trajectory("no_output", "ok", codes=("'''a docstring'''\npass",)), 0.5),
        (trajectory("ok", codes=("'shown'",)), 1.0),
    ],
)
def test_share_of_calls_that_succeeded(rollout: Trajectory, rate: float) -> None:
    assert success_rate(rollout) == pytest.approx(rate)


def test_a_refused_call_is_not_the_models_fault() -> None:
    assert turn_rewards(trajectory("rejected", "error"), PAPER) == (0, -0.5, 0)


@pytest.mark.parametrize("status", ["error", "timeout", "killed"])
def test_each_failure_costs_its_turn(status: str) -> None:
    assert turn_rewards(trajectory("ok", status, "no_output"), PAPER) == (0, -0.5, 0, 0)


def test_the_last_turn_has_no_turn_reward() -> None:
    assert turn_rewards(trajectory("error", "error", answer=None, finish=FinishReason.LENGTH), PAPER) == (-0.5, 0)


@pytest.mark.parametrize(
    ("code", "real"),
    [
        ("", False),
        ("# x = 1", False),
        ("pass", False),
        ("...", False),
        ("'x'; 3", False),
        ("x = 1", True),
        ("f()", True),
        ("import os", True),
        ("x", True),
        ("%matplotlib inline", True),
    ],
)
def test_code_that_does_something(code: str, real: bool) -> None:
    assert does_something(code) is real
