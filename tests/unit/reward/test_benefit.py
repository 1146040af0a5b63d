"""Benefit of calling: the group's estimate, and the presets `taco` and `at_grpo` that credit calls with it."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest

from codedance_verl.reward.advantage import group_advantages
from codedance_verl.reward.benefit import group_benefit, stated_benefit
from codedance_verl.reward.presets import AT_GRPO, OUTCOME, TACO
from codedance_verl.reward.terms import score_group, turn_rewards, turn_rewards_summed
from codedance_verl.reward.tool_calls import CallKind
from codedance_verl.types import Grade, Trajectory
from tests.unit.reward.rollouts import RIGHT, UNGRADED, WRONG, trajectory

CALLED, DIRECT = trajectory("ok"), trajectory()


def advantages(rollouts: list[Trajectory], grades: list[Grade]) -> list[list[float]]:
    found = group_advantages(score_group(rollouts, grades, TACO), TACO, divide_by_std=True)
    return [list(item.turns or ()) for item in found]


def test_the_benefit_is_the_difference_of_both_accuracies() -> None:
    called, direct = [(True, True), (True, True), (True, False)], [(False, False), (False, True)]
    assert group_benefit([*called, *direct]) == pytest.approx(2 / 3 - 1 / 2)
    assert group_benefit([(True, True), (False, True)]) == 0
    assert group_benefit([(True, False), (False, True)]) == -1


@pytest.mark.parametrize("called", [True, False])
def test_it_is_unknown_where_one_side_is_missing(called: bool) -> None:
    assert group_benefit([(called, True), (called, False)]) is None
    assert group_benefit([]) is None


def test_the_estimate_finds_on_average_what_calling_is_worth() -> None:
    chance = random.Random(1)
    right = {True: 0.9, False: 0.3}
    groups = [[(called, chance.random() < right[called]) for called in (True, False) * 4] for _ in range(4_000)]
    found = [value for group in groups if (value := group_benefit(group)) is not None]
    assert sum(found) / len(found) == pytest.approx(0.6, abs=0.02)


@pytest.mark.parametrize(("value", "read"), [(0.5, 0.5), (-1, -1.0), (0, 0.0)])
def test_a_record_may_state_it(value: float, read: float) -> None:
    assert stated_benefit({"Tool_Benefit_Score": value}) == read


@pytest.mark.parametrize("value", ["0.5", None, True, 1.5, float("nan")])
def test_what_is_no_number_of_its_range_is_not_stated(value: object) -> None:
    assert stated_benefit({"Tool_Benefit_Score": value}) is None
    assert stated_benefit({}) is None


def test_taco_where_calls_help_worked_by_hand() -> None:
    """b = 1/2 - 0; scores 1, 0, 0, 0 have mean 1/4 and deviation 1/2, so S is 1.5 and -0.5.

    The call of the right rollout gets S + b = 2. That of the wrong one is not blamed, as calls help: b alone.
    """
    found = advantages([CALLED, CALLED, DIRECT, DIRECT], [RIGHT, WRONG, WRONG, WRONG])
    assert found[0] == pytest.approx([2.0, 1.5], abs=1e-5)
    assert found[1] == pytest.approx([0.5, -0.5], abs=1e-5)
    assert found[2:] == [pytest.approx([-0.5], abs=1e-5)] * 2


def test_taco_where_calls_harm_worked_by_hand() -> None:
    """b = 1/2 - 1; S is 0.5 and -1.5. The right rollout's call has no part in its answer, the wrong one's is blamed."""
    found = advantages([CALLED, CALLED, DIRECT, DIRECT], [RIGHT, WRONG, RIGHT, RIGHT])
    assert found[0] == pytest.approx([-0.5, 0.5], abs=1e-5)
    assert found[1] == pytest.approx([-2.0, -1.5], abs=1e-5)


@pytest.mark.parametrize("rollout", [CALLED, DIRECT])
def test_taco_is_outcome_where_one_side_is_missing(rollout: Trajectory) -> None:
    rollouts, grades = [rollout] * 3, [RIGHT, WRONG, WRONG]
    plain = group_advantages(score_group(rollouts, grades, OUTCOME), OUTCOME, divide_by_std=True)
    assert advantages(rollouts, grades) == [list(item.turns or ()) for item in plain]


def test_masked_rollouts_are_on_no_side() -> None:
    rollouts, grades = [CALLED, DIRECT, DIRECT], [RIGHT, WRONG, UNGRADED]
    assert [term.turns[0] for term in score_group(rollouts, grades, TACO)] == [1.0, 0.0, 0.0]


def test_calls_share_the_benefit_and_those_that_went_wrong_gain_nothing() -> None:
    kinds = (CallKind.HELPFUL, CallKind.FAILED, CallKind.REPEATED, CallKind.IDLE, None)
    assert turn_rewards(kinds, TACO, 0.8) == pytest.approx((0.2, 0, 0.2, 0, 0))
    assert turn_rewards(kinds, TACO, -0.8) == pytest.approx((-0.2, -0.2, -0.2, -0.2, 0))
    assert turn_rewards(kinds, TACO, None) == (0, 0, 0, 0, 0)


def test_other_estimators_add_the_benefit_to_the_score_however_many_calls_there_are() -> None:
    often = trajectory("ok", "ok", codes=("f()", "g()"))
    terms = score_group([CALLED, often, DIRECT, DIRECT], [RIGHT, RIGHT, WRONG, RIGHT], TACO)
    assert [sum(turn_rewards_summed(term, TACO).turns) for term in terms] == pytest.approx([0.5, 0.5, 0, 0])


def test_at_grpo_worked_by_hand() -> None:
    """0.6 dS exp(-2 ((n - 6) / 6)^2): with dS = 0.5 none has .0406, one .0748, six .3; with -0.5 as much below 0."""
    six = trajectory(*["ok"] * 6, codes=tuple(f"f({k})" for k in range(6)))
    rollouts = [DIRECT, CALLED, six, trajectory("error")]
    for benefit in (0.5, -0.5):
        stated = [replace(rollout, extra_info={"Tool_Benefit_Score": benefit}) for rollout in rollouts]
        found = [term.sequence for term in score_group(stated, [WRONG] * 4, AT_GRPO)]
        wanted = [0.6 * benefit * math.exp(-2 * ((n - 6) / 6) ** 2) for n in (0, 1, 6, 0)]
        assert found == pytest.approx(wanted)
        assert [round(abs(value), 4) for value in found] == [0.0406, 0.0748, 0.3, 0.0406]


def test_at_grpo_takes_the_benefit_of_the_group_where_the_record_states_none() -> None:
    terms = score_group([CALLED, DIRECT], [RIGHT, WRONG], AT_GRPO)
    assert terms[0].sequence == pytest.approx(0.6 * math.exp(-2 * (5 / 6) ** 2))
    assert terms[0].score == pytest.approx(1 + terms[0].sequence)
    assert [term.sequence for term in score_group([CALLED, CALLED], [RIGHT, WRONG], AT_GRPO)] == [0, 0]
