from __future__ import annotations

import math
from dataclasses import replace

import pytest

from codedance_verl.reward.difficulty import DifficultyForm
from codedance_verl.reward.presets import GATED, GTPO, OUTCOME, PAPER, PER_CALL_BONUS, RELEASE, ROBUST
from codedance_verl.reward.terms import score_group, turn_rewards, turn_rewards_summed
from codedance_verl.reward.tool_calls import call_kinds
from codedance_verl.reward.tool_terms import bonus_share, cost_share, success_rate
from codedance_verl.types import FinishReason, RewardTerms, Trajectory
from tests.unit.reward.rollouts import RIGHT, UNGRADED, WRONG, trajectory


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
    config = PAPER.replace(difficulty_form=DifficultyForm.TANH)
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
        (trajectory("ok", codes=("'shown'",)), 0.0),
    ],
)
def test_share_of_calls_that_succeeded(rollout: Trajectory, rate: float) -> None:
    assert success_rate(call_kinds(rollout)) == pytest.approx(rate)


def test_a_call_that_could_not_be_read_costs_nothing_in_the_published_formulas() -> None:
    assert turn_rewards(call_kinds(trajectory("rejected", "error")), PAPER) == (0, -0.5, 0)


@pytest.mark.parametrize("status", ["error", "timeout", "killed"])
def test_each_failure_costs_its_turn(status: str) -> None:
    assert turn_rewards(call_kinds(trajectory("ok", status, "no_output")), PAPER) == (0, -0.5, 0, 0)


def test_the_last_turn_has_no_turn_reward() -> None:
    cut = trajectory("error", "error", answer=None, finish=FinishReason.LENGTH)
    assert turn_rewards(call_kinds(cut), PAPER) == (-0.5, 0)


def test_the_release_takes_the_mean_score_tags_and_constants_of_its_own() -> None:
    rollouts = [trajectory("ok"), trajectory("error", "ok"), trajectory(), trajectory("ok", answer=None)]
    terms = score_group(rollouts, [RIGHT, WRONG, RIGHT, WRONG], RELEASE)
    mu = (1 + 0 + 1 - 0.2) / 4
    d = (1 + math.tanh(4 * (0.5 - mu))) / 2 - 0.2
    assert [term.difficulty for term in terms] == pytest.approx([d] * 4)
    assert [term.score for term in terms] == pytest.approx([1 + 1.5 * d, 0.25 * d, 1, 0.5 * d - 0.2])
    drawn = [replace(rollout, data_source="thinklite") for rollout in rollouts]
    terms = score_group(drawn, [RIGHT, WRONG, RIGHT, WRONG], RELEASE)
    mu = (1.2 + 0 + 1.2 - 0.4) / 4
    d = (1 + math.tanh(4 * (0.5 - mu))) / 2 - 0.2
    assert [term.score for term in terms] == pytest.approx([1.2 + 2 * d, 0.5 * d, 1.2, d - 0.4])


def test_robust_worked_by_hand() -> None:
    """Half of the group is right: d = 0.3. On a hard group calls earn with a right answer only."""
    rollouts = [trajectory("ok"), trajectory("error", "ok"), trajectory(), trajectory("ok")]
    terms = score_group(rollouts, [RIGHT, RIGHT, WRONG, WRONG], ROBUST)
    assert [term.sequence for term in terms] == pytest.approx([0.5 * 0.3 * 0.8, 0.5 * 0.3 * 0.5 * 0.8, 0, 0])
    assert [term.score for term in terms] == pytest.approx([1.12, 1.06, 0, 0])
    assert [term.turns for term in terms] == [(0, 0), (-0.5, 0.2, 0), (0,), (0, 0)]


def test_robust_charges_every_call_of_an_easy_group() -> None:
    rollouts = [trajectory(), trajectory("ok"), trajectory("error"), trajectory("rejected", "ok")]
    terms = score_group(rollouts, [RIGHT] * 4, ROBUST)
    d = (1 + math.tanh(-2)) / 2 - 0.2
    assert [term.sequence for term in terms] == pytest.approx([0, 2 * d / 2, 2 * d / 2, 2 * d * 2 / 3])
    assert terms[3].format == 0  # the text is a call; the record says that it could not be read


@pytest.mark.parametrize("finish", [FinishReason.LENGTH, FinishReason.TIME_LIMIT])
def test_robust_masks_what_was_cut_off(finish: FinishReason) -> None:
    cut = trajectory("ok", answer=None, finish=finish)
    terms = score_group([trajectory(), cut], [RIGHT, WRONG], ROBUST)
    assert [term.masked for term in terms] == [False, True]
    assert terms[0].difficulty == score_group([trajectory()], [RIGHT], ROBUST)[0].difficulty


def test_a_rollout_that_would_not_stop_calling_is_wrong_and_not_masked() -> None:
    endless = trajectory("ok", answer=None, finish=FinishReason.TURN_LIMIT)
    assert not score_group([trajectory(), endless], [RIGHT, WRONG], ROBUST)[1].masked


def test_recovery_is_credited_once_and_right_after_the_failure() -> None:
    codes = ("a()", "b()", "c()", "d()", "e()")
    kinds = call_kinds(trajectory("error", "ok", "ok", "rejected", "timeout", codes=codes))
    assert turn_rewards(kinds, ROBUST) == (-0.5, 0.2, 0, -0.5, -0.5, 0)


def test_shares_of_bonus_and_cost() -> None:
    helped = [bonus_share(call_kinds(trajectory(*["ok"] * n, codes=CODES[:n])), 0.25) for n in range(6)]
    assert helped[:3] == pytest.approx([0, 0.8, 2 / 2.25])
    assert helped == sorted(helped) and helped[-1] < 1
    assert [cost_share(n, 4) for n in (0, 1, 4)] == pytest.approx([0, 0.2, 0.5])
    assert cost_share(0, 0) == 0


CODES = tuple(f"step_{number}()" for number in range(6))


def test_a_bonus_for_every_call_is_paid_right_or_wrong() -> None:
    rollouts = [trajectory("ok", "ok", "error"), trajectory("ok", "ok"), trajectory()]
    terms = score_group(rollouts, [RIGHT, WRONG, WRONG], PER_CALL_BONUS)
    assert [term.score for term in terms] == pytest.approx([1.2, 0.2, 0])
    assert all(reward == 0 for term in terms for reward in term.turns)


def test_outcome_sees_no_calls() -> None:
    terms = score_group(
        [trajectory("ok", "error"), trajectory(), trajectory("ok", answer=None)], [RIGHT, WRONG, WRONG], OUTCOME
    )
    assert [term.score for term in terms] == pytest.approx([1, 0, -0.2])
    assert terms[0].turns == (0, 0, 0)


def test_immediate_rewards_pass_the_gate_with_the_outcome_only() -> None:
    """G-RA: 0.1 for each of two successes, -0.1 for the failure; a malformed right answer stays below the gate of 1."""
    steps = ("ok", "ok", "error")
    right, malformed, wrong = trajectory(*steps), trajectory(*steps, answer="<answer>3"), trajectory(*steps)
    terms = score_group([right, malformed, wrong], [RIGHT, RIGHT, WRONG], GATED)
    assert [term.sequence for term in terms] == pytest.approx([0.1, 0, 0])
    assert [term.score for term in terms] == pytest.approx([1.1, 0.8, 0])
    (opened,) = score_group([wrong], [WRONG], GATED.replace(tool_term={"min_base_reward": 0.0}))
    assert opened.score == pytest.approx(0.1)


def test_turn_returns_charge_a_failed_turn() -> None:
    assert turn_rewards(call_kinds(trajectory("error", "rejected", "ok")), GTPO) == (-0.1, -0.1, 0, 0)


def turns(*rewards: float) -> RewardTerms:
    return RewardTerms(accuracy=1, format=0, difficulty=0, sequence=0, score=1, turns=(*rewards, 0.0))


def test_added_up_turn_rewards_are_in_units_of_the_score() -> None:
    assert turn_rewards_summed(turns(-0.5, 0), PAPER).turns == pytest.approx((-0.1, 0, 0))
    assert turn_rewards_summed(turns(-0.1, 0.0), ROBUST).turns == (-0.1, 0, 0)
    assert turn_rewards_summed(turns(-0.5, 0.2), ROBUST).turns == pytest.approx((-0.5, 0.2, 0))


def test_added_up_they_never_take_more_than_their_limit() -> None:
    spent = turn_rewards_summed(turns(-0.5, -0.5, 0.2), ROBUST)
    assert sum(spent.turns) == pytest.approx(-0.3)
    assert spent.turns == pytest.approx((-0.1875, -0.1875, 0.075, 0))
    assert spent.score == 1
