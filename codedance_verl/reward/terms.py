"""Reward of a group of rollouts of one question, each term on its own.

score = accuracy_weight accuracy + format_weight format + tool term + custom_weight custom term; beside it the turn
rewards r_k, which the advantage estimator reads. Constants and their presets: `config.py`, `presets.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from codedance_verl.reward.benefit import group_benefit, stated_benefit
from codedance_verl.reward.config import GroupMean, RewardConfig, TurnCredit, Weights, weights_of
from codedance_verl.reward.difficulty import difficulty
from codedance_verl.reward.format import format_reward
from codedance_verl.reward.tool_calls import CallKind, call_kinds, count
from codedance_verl.reward.tool_terms import ToolTermInputs, tool_term
from codedance_verl.types import FinishReason, Grade, RewardTerms, Trajectory, Verdict


@dataclass(frozen=True)
class CustomValue:
    """Value of the user's own term (`custom_term.py`) for a rollout, -10 to 10 and without its weight.

    `fault` is the reason for no value.
    """

    value: float = 0.0
    fault: str = ""


@dataclass(frozen=True)
class _Judged:
    """Rollout that counts: its calls, accuracy 0 or 1, format 0 or -1, the weights of both, and the user's own term."""

    trajectory: Trajectory
    kinds: tuple[CallKind | None, ...]
    right: bool
    custom: float
    form: float
    weights: Weights

    @property
    def base(self) -> float:
        return self.weights.accuracy * self.right + self.weights.format * self.form


def score_group(
    trajectories: Sequence[Trajectory],
    grades: Sequence[Grade],
    config: RewardConfig,
    custom: Sequence[CustomValue] | None = None,
) -> list[RewardTerms]:
    """Scores all rollouts of one question together; returns their terms in the same order.

    The group's mean mu is taken over the rollouts that are not masked. A masked rollout (`is_masked`) gets zeros.
    `custom` holds the user's own term of each rollout, where there is one.

    Raises:
        ValueError: not one grade, or not one term of the user's own, for each trajectory.
    """
    custom = [CustomValue()] * len(trajectories) if custom is None else custom
    if not len(trajectories) == len(grades) == len(custom):
        raise ValueError(
            f"{len(trajectories)} trajectories came with {len(grades)} grades and {len(custom)} custom terms"
        )
    judged = [
        None if is_masked(trajectory, grade, config, own) else _judge(trajectory, grade.correct, own, config)
        for trajectory, grade, own in zip(trajectories, grades, custom, strict=True)
    ]
    counted = [item for item in judged if item is not None]
    values = [item.base if config.group_mean is GroupMean.SCORE else float(item.right) for item in counted]
    mu = sum(values) / max(len(values), 1)  # of a group that is masked whole nothing reads it
    hardness = difficulty(mu, form=config.difficulty_form, gamma=config.gamma, delta=config.delta)
    benefit = group_benefit((count(item.kinds) > 0, item.right) for item in counted)
    return [
        _masked_terms(trajectory, own) if item is None else _terms(item, hardness, benefit, config)
        for trajectory, item, own in zip(trajectories, judged, custom, strict=True)
    ]


def is_masked(trajectory: Trajectory, grade: Grade, config: RewardConfig, custom: CustomValue | None = None) -> bool:
    """True for a rollout that says nothing of the model.

    An infrastructure fault, an answer that was not graded, an end that the preset counts as cut off (`mask_finishes`),
    and a rollout to which the user's own term gave no value.
    """
    return (
        (custom is not None and bool(custom.fault))
        or trajectory.finish is FinishReason.INFRASTRUCTURE
        or grade.verdict is Verdict.UNGRADED
        or trajectory.finish in config.mask_finishes
    )


def turn_rewards(
    kinds: Sequence[CallKind | None], config: RewardConfig, benefit: float | None = None
) -> tuple[float, ...]:
    """Returns the immediate reward r_k of each turn, from the kinds of their calls; the last turn's is always 0.

    A helpful call right after one that went wrong earns `recovered_turn`. All calls of the rollout share `call_value`
    times the group's `benefit` of calling, None where it is unknown. All are 0 where the preset credits no turns.
    """
    if config.turn_credit is TurnCredit.NONE:
        return (0.0,) * len(kinds)
    # what calling is worth belongs to the calls together: each gets its share, so that more of them earn no more
    share = config.call_value * (benefit or 0.0) / max(count(kinds), 1)
    rewards, wrong_before = [], False
    for kind in kinds:
        rewards.append(_turn_reward(kind, wrong_before, config) + _call_credit(kind, share))
        if kind is not None:  # a turn without a call neither fails nor recovers
            wrong_before = kind.went_wrong
    # the last turn has no place for r_k: its token carries the score (`encoding.py`)
    return (*rewards[:-1], 0.0) if rewards else ()


def fatal_turn(kinds: Sequence[CallKind | None], failures: int) -> int | None:
    """Returns the first turn, from 0, of the first `failures` calls in a row that went wrong; None without them, or 0.

    The fatal step of OpenSearch-VL (arXiv 2605.05185). A turn without a call neither adds to them nor ends them.
    """
    run: list[int] = []
    for turn, kind in enumerate(kinds):
        if kind is not None:
            run = [*run, turn] if kind.went_wrong else []
        if run and len(run) == failures:
            return run[0]
    return None


def turn_rewards_summed(terms: RewardTerms, config: RewardConfig) -> RewardTerms:
    """Returns the same reward for estimators that add up token rewards (PPO with GAE, plain GRPO).

    Turn rewards are in units of the score there: r_k becomes turn_weight r_k, all of a trajectory scaled down where
    they take more than `max_turn_penalty` off the score. So a failing call never raises the sum, and a right answer
    outranks a wrong one there too.
    """
    weighted = [config.turn_weight * reward for reward in terms.turns]
    total = sum(weighted)
    # one factor for all turns: cutting some of them off would leave later failures without a cost
    scale = config.max_turn_penalty / -total if total < -config.max_turn_penalty else 1.0
    return replace(terms, turns=tuple(scale * reward for reward in weighted))


def _judge(trajectory: Trajectory, right: bool, custom: CustomValue, config: RewardConfig) -> _Judged:
    form = format_reward(trajectory, config.max_answer_chars, config.format_rule)
    kinds, weights = call_kinds(trajectory), weights_of(config, trajectory.data_source)
    return _Judged(trajectory, kinds, right, custom.value, form, weights)


def _terms(item: _Judged, hardness: float, benefit: float | None, config: RewardConfig) -> RewardTerms:
    kinds, stated = item.kinds, stated_benefit(item.trajectory.extra_info)
    of_question = (benefit or 0.0) if stated is None else stated
    sequence = tool_term(ToolTermInputs(kinds, item.right, item.base, hardness, item.weights, config, of_question))
    return RewardTerms(
        accuracy=float(item.right),
        format=item.form,
        difficulty=hardness,
        sequence=sequence,
        score=item.base + sequence + config.custom_weight * item.custom,
        turns=turn_rewards(kinds, config, benefit),
        custom=item.custom,
        valid_turns=fatal_turn(kinds, config.fatal_failures),
    )


def _masked_terms(trajectory: Trajectory, custom: CustomValue) -> RewardTerms:
    turns = (0.0,) * len(trajectory.turns)
    return RewardTerms(0.0, 0.0, 0.0, 0.0, 0.0, turns, masked=True, custom_fault=custom.fault)


def _call_credit(kind: CallKind | None, share: float) -> float:
    """Share of a call in the benefit of calling: harm is charged to every call, a gain paid to those that ran."""
    if kind is None or (share > 0 and not kind.ran):
        return 0.0
    return share


def _turn_reward(kind: CallKind | None, wrong_before: bool, config: RewardConfig) -> float:
    match kind:
        case CallKind.FAILED:
            return config.failed_turn
        case CallKind.INVALID:
            return config.invalid_turn
        case CallKind.IDLE | CallKind.REPEATED:
            return config.idle_turn
        case CallKind.HELPFUL if wrong_before:
            return config.recovered_turn
        case _:
            return 0.0
