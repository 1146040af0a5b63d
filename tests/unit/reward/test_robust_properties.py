"""What the preset `robust` promises, on random groups: right and wrong, called and direct, failing, idle and masked."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from codedance_verl.reward.advantage import group_advantages, token_advantages
from codedance_verl.reward.config import RewardConfig
from codedance_verl.reward.difficulty import DifficultyForm
from codedance_verl.reward.encoding import encode_rewards
from codedance_verl.reward.presets import ROBUST
from codedance_verl.reward.terms import score_group, turn_rewards_summed
from codedance_verl.reward.tool_terms import AdaptiveTerm
from codedance_verl.types import Execution, ExecutionStatus, FinishReason, Grade, RewardTerms, Trajectory, Turn
from tests.unit.reward.rollouts import RIGHT, UNGRADED, WRONG, trajectory

STATUSES = ("ok", "ok", "no_output", "error", "timeout", "killed", "rejected")
FAILURES = (ExecutionStatus.ERROR, ExecutionStatus.TIMEOUT, ExecutionStatus.KILLED, ExecutionStatus.REJECTED)
CODES = ("f()", "x = g(1)", "# nothing", "pass", "'text'", "print(2)")
CONFIGS = (
    ROBUST,
    ROBUST,
    ROBUST.replace(difficulty_form=DifficultyForm.SIGMOID, gamma=10.0, delta=0.3, tool_term={"easy_cost": 1.0}),
    ROBUST.replace(
        tool_term={"tool_coef_correct": 3.0, "easy_cost": 0.5, "bonus_half_saturation": 0.0},
        max_turn_penalty=0.6,
        recovered_turn=0.5,
    ),
)
NEW_CODE = "h(input_image)"


def adaptive(config: RewardConfig) -> AdaptiveTerm:
    assert isinstance(config.tool_term, AdaptiveTerm)
    return config.tool_term


@dataclass(frozen=True)
class Group:
    """Rollouts of one question with their grades, as the worker has them."""

    trajectories: tuple[Trajectory, ...]
    grades: tuple[Grade, ...]
    config: RewardConfig

    @property
    def terms(self) -> list[RewardTerms]:
        return score_group(self.trajectories, self.grades, self.config)

    def with_rollout(self, index: int, changed: Trajectory) -> Group:
        others = list(self.trajectories)
        others[index] = changed
        return replace(self, trajectories=tuple(others))


_call = st.tuples(st.sampled_from(STATUSES), st.sampled_from(CODES))
_ending = st.sampled_from(
    [
        ("3", FinishReason.ANSWER),
        ("3", FinishReason.ANSWER),
        ("3</answer><answer>4", FinishReason.ANSWER),
        (None, FinishReason.TURN_LIMIT),
        (None, FinishReason.NO_ACTION),
        (None, FinishReason.LENGTH),
        (None, FinishReason.TIME_LIMIT),
        (None, FinishReason.INFRASTRUCTURE),
    ]
)
_grade = st.sampled_from([RIGHT, RIGHT, RIGHT, WRONG, WRONG, UNGRADED])
_rollout = st.tuples(st.lists(_call, max_size=5), _ending, _grade)


@st.composite
def groups(draw: st.DrawFn) -> Group:
    members = draw(st.lists(_rollout, min_size=1, max_size=8))
    trajectories, grades = [], []
    for calls, (answer, finish), grade in members:
        codes = tuple(code for _, code in calls)
        made = trajectory(*(status for status, _ in calls), codes=codes, answer=answer, finish=finish)
        if made.turns:
            trajectories.append(made)
            grades.append(grade if answer is not None else WRONG)
    assume(trajectories)
    return Group(tuple(trajectories), tuple(grades), draw(st.sampled_from(CONFIGS)))


def insert(rollout: Trajectory, place: int, code: str, status: ExecutionStatus) -> Trajectory:
    """The rollout with one more call before its turn `place`."""
    added = Turn(trajectory("ok", codes=(code,)).turns[0].text, 0, 0, code, Execution(status))
    turns = [*rollout.turns[:place], added, *rollout.turns[place:]]
    placed = tuple(replace(turn, token_start=15 * k, token_end=15 * k + 10) for k, turn in enumerate(turns))
    return replace(rollout, turns=placed)


def advantages(terms: Sequence[RewardTerms], groups: Sequence[str], config: RewardConfig) -> npt.NDArray[np.float32]:
    """Of turns of one token each, [B, K]."""
    length = 2 * max(len(term.turns) for term in terms)
    rewards, mask = np.zeros((len(terms), length), np.float32), np.zeros((len(terms), length), np.int64)
    for row, term in enumerate(terms):
        spans = [(2 * k, 2 * k + 1) for k in range(len(term.turns))]
        rewards[row] = encode_rewards(spans, term, length)
        mask[row, [start for start, _ in spans]] = not term.masked
    return token_advantages(rewards, mask, groups, config)[:, ::2]


def returned(term: RewardTerms, config: RewardConfig) -> float:
    """What PPO sees of a rollout without discount: score and turn rewards added up."""
    return term.score + sum(turn_rewards_summed(term, config).turns)


def check_right_outranks_wrong(group: Group) -> None:
    counted = [(term, grade) for term, grade in zip(group.terms, group.grades, strict=True) if not term.masked]
    for value in (lambda term: term.score, lambda term: returned(term, group.config)):
        right = [value(term) for term, grade in counted if grade.correct]
        wrong = [value(term) for term, grade in counted if not grade.correct]
        assert min(right, default=1.0) > max(wrong, default=0.0)


def check_no_failing_call_pays(group: Group, index: int, chance: random.Random) -> None:
    before = group.terms
    rollout = group.trajectories[index]
    place = chance.randrange(len(rollout.turns))
    failing = insert(rollout, place, chance.choice(CODES), chance.choice(FAILURES))
    after = group.with_rollout(index, failing).terms
    assert after[index].score <= before[index].score + 1e-12
    assert sum(after[index].turns) <= sum(before[index].turns) + 1e-12
    assert returned(after[index], group.config) <= returned(before[index], group.config) + 1e-12
    assert after[index].turns[place] <= 0
    assert [*after[:index], *after[index + 1 :]] == [*before[:index], *before[index + 1 :]]


def check_one_more_call(group: Group, index: int) -> None:
    """Of code that runs and was not run before, right before the last turn."""
    before = group.terms[index]
    rollout = group.trajectories[index]
    called = insert(rollout, len(rollout.turns) - 1, NEW_CODE, ExecutionStatus.OK)
    after = group.with_rollout(index, called).terms[index]
    if before.masked:
        assert after == replace(before, turns=(*before.turns, 0.0))
    elif before.difficulty < 0:
        assert after.score < before.score
    elif before.difficulty > 0 and group.grades[index].correct:
        half = adaptive(group.config).bonus_half_saturation
        assert after.score > before.score or half == 0 == before.score - after.score
    else:
        assert after.score == before.score


def check_order_and_other_groups_do_not_matter(group: Group, other: Group, chance: random.Random) -> None:
    order = list(range(len(group.trajectories)))
    chance.shuffle(order)
    terms = group.terms
    shuffled = replace(
        group,
        trajectories=tuple(group.trajectories[k] for k in order),
        grades=tuple(group.grades[k] for k in order),
    ).terms
    assert shuffled == [terms[k] for k in order]
    alone = advantages(terms, ["a"] * len(terms), group.config)
    both = [*terms, *other.terms]
    names = ["a"] * len(terms) + ["b"] * len(other.trajectories)
    mixed = list(range(len(both)))
    chance.shuffle(mixed)
    got = advantages([both[k] for k in mixed], [names[k] for k in mixed], group.config)
    for row, index in enumerate(mixed):
        if index < len(terms):
            np.testing.assert_allclose(got[row, : alone.shape[1]], alone[index, : got.shape[1]], atol=1e-6)


def check_masked_rollouts_are_not_there(group: Group) -> None:
    terms = group.terms
    counted = [k for k, term in enumerate(terms) if not term.masked]
    for term in terms:
        if term.masked:
            assert (term.score, term.accuracy, term.format, term.sequence, sum(term.turns)) == (0, 0, 0, 0, 0)
    got = advantages(terms, ["a"] * len(terms), group.config)
    assert not got[[k for k, term in enumerate(terms) if term.masked]].any()
    if counted:
        rest = replace(
            group,
            trajectories=tuple(group.trajectories[k] for k in counted),
            grades=tuple(group.grades[k] for k in counted),
        )
        assert rest.terms == [terms[k] for k in counted]
        alone = advantages(rest.terms, ["a"] * len(counted), group.config)
        np.testing.assert_allclose(got[counted, : alone.shape[1]], alone, atol=1e-6)


def check_bounds(group: Group) -> None:
    config, own = group.config, adaptive(group.config)
    for term in group.terms:
        assert term.accuracy in (0, 1) and term.format in (-1, 0)
        assert -own.easy_cost * config.delta <= term.sequence <= own.tool_coef_correct * (1 - config.delta)
        assert config.failed_turn <= min(term.turns) and max(term.turns) <= config.recovered_turn
        assert term.turns[-1] == 0
        if not term.masked:
            assert -config.delta <= term.difficulty <= 1 - config.delta
            assert term.score == pytest.approx(term.accuracy + config.format_weight * term.format + term.sequence)
        assert abs(returned(term, config) - term.score) <= config.max_turn_penalty + 1e-9


def check_everything(group: Group, other: Group, seed: int) -> None:
    chance = random.Random(seed)
    index = chance.randrange(len(group.trajectories))
    check_right_outranks_wrong(group)
    check_no_failing_call_pays(group, index, chance)
    check_one_more_call(group, index)
    check_order_and_other_groups_do_not_matter(group, replace(other, config=group.config), chance)
    check_masked_rollouts_are_not_there(group)
    check_bounds(group)


FIRST_CALL, FURTHER_CALL = 1.1, 0.07
"""Advantage that a call costs where all are right and differ in their calls alone, as docs/reward.md has it."""


def sequence_advantages(rollouts: Sequence[Trajectory], grades: Sequence[Grade]) -> list[float]:
    found = group_advantages(score_group(rollouts, grades, ROBUST), ROBUST, divide_by_std=True)
    return [item.sequence for item in found if item.sequence is not None]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.lists(st.sampled_from(STATUSES), max_size=5), min_size=2, max_size=16))
def test_where_all_are_right_fewer_calls_win_clearly(calls: list[list[str]]) -> None:
    rollouts = [trajectory(*statuses, codes=tuple(f"f({k})" for k in range(5))[: len(statuses)]) for statuses in calls]
    found = sequence_advantages(rollouts, [RIGHT] * len(rollouts))
    for fewer, more in ((a, b) for a in range(len(calls)) for b in range(len(calls)) if len(calls[a]) < len(calls[b])):
        assert found[fewer] - found[more] >= (FURTHER_CALL if calls[fewer] else FIRST_CALL)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from(STATUSES), max_size=5), min_size=2, max_size=16),
    st.lists(st.lists(st.sampled_from(STATUSES), max_size=5), min_size=1, max_size=8),
)
def test_beside_wrong_answers_a_call_stays_a_small_difference(right: list[list[str]], wrong: list[list[str]]) -> None:
    rollouts = [trajectory(*statuses) for statuses in (*right, *wrong)]
    found = sequence_advantages(rollouts, [RIGHT] * len(right) + [WRONG] * len(wrong))
    of_right, of_wrong = found[: len(right)], found[len(right) :]
    assert max(of_right) - min(of_right) < 0.5 * (min(of_right) - max(of_wrong))


def test_a_needless_call_weighs_as_a_wrong_answer_does_in_a_group_half_right() -> None:
    """Of 8 right rollouts 4 call: 2 x .182 / 2 = .182 a call, over a deviation of .0973 and so over 0.1."""
    by_call = sequence_advantages([trajectory(), trajectory("ok")] * 4, [RIGHT] * 8)
    assert by_call[:2] == pytest.approx([0.91, -0.91], abs=0.001)
    once = sequence_advantages([trajectory("ok"), *[trajectory()] * 7], [RIGHT] * 8)
    assert once[0] - once[1] == pytest.approx(-1.82, abs=0.001)  # GRPO would make it -2.83
    by_answer = sequence_advantages([trajectory()] * 8, [RIGHT, WRONG] * 4)
    assert by_answer[:2] == pytest.approx([0.935, -0.935], abs=0.001)


_health = [HealthCheck.too_slow, HealthCheck.data_too_large]
_anything = given(groups(), groups(), st.integers(0, 2**32 - 1))


@settings(max_examples=150, deadline=None, suppress_health_check=_health)
@_anything
def test_what_robust_promises(group: Group, other: Group, seed: int) -> None:
    check_everything(group, other, seed)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("quarter", range(4))
@settings(max_examples=2_500, deadline=None, suppress_health_check=_health)
@_anything
def test_what_robust_promises_on_ten_thousand_groups(quarter: int, group: Group, other: Group, seed: int) -> None:
    check_everything(group, other, seed)
