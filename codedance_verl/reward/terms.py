"""The reward of a group of rollouts of one question, each term on its own.

The published R = R_acc + R_format + R_seq, and the turn rewards r_k that the advantage estimator reads.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence

from codedance_verl.reward.config import RewardConfig
from codedance_verl.reward.difficulty import difficulty
from codedance_verl.reward.format import format_reward
from codedance_verl.types import (
    ExecutionStatus,
    FinishReason,
    Grade,
    RewardTerms,
    Trajectory,
    Turn,
    Verdict,
)


def score_group(trajectories: Sequence[Trajectory], grades: Sequence[Grade], config: RewardConfig) -> list[RewardTerms]:
    """Score all rollouts of one question together; returns their terms in the same order.

    The group's accuracy mu is taken over the rollouts that are not masked. A masked rollout (`is_masked`) gets zeros.

    Raises:
        ValueError: not one grade for each trajectory.
    """
    if len(trajectories) != len(grades):
        raise ValueError(f"{len(trajectories)} trajectories came with {len(grades)} grades")
    masked = [is_masked(trajectory, grade) for trajectory, grade in zip(trajectories, grades, strict=True)]
    counted = [grade.correct for grade, hidden in zip(grades, masked, strict=True) if not hidden]
    if not counted:
        return [_masked_terms(trajectory) for trajectory in trajectories]
    hardness = difficulty(
        sum(counted) / len(counted), form=config.difficulty_form, gamma=config.gamma, delta=config.delta
    )
    return [
        _masked_terms(trajectory) if hidden else _terms(trajectory, grade.correct, hardness, config)
        for trajectory, grade, hidden in zip(trajectories, grades, masked, strict=True)
    ]


def is_masked(trajectory: Trajectory, grade: Grade) -> bool:
    """True for a rollout that says nothing of the model: an infrastructure fault, or an answer that was not graded."""
    return trajectory.finish is FinishReason.INFRASTRUCTURE or grade.verdict is Verdict.UNGRADED


def _masked_terms(trajectory: Trajectory) -> RewardTerms:
    turns = (0.0,) * len(trajectory.turns)
    return RewardTerms(accuracy=0.0, format=0.0, difficulty=0.0, sequence=0.0, score=0.0, turns=turns, masked=True)


def _terms(trajectory: Trajectory, correct: bool, hardness: float, config: RewardConfig) -> RewardTerms:
    accuracy = float(correct)
    form = format_reward(trajectory, config.max_answer_chars)
    factor = config.sequence_right if correct else config.sequence_wrong
    sequence = factor * hardness * success_rate(trajectory)
    return RewardTerms(
        accuracy=accuracy,
        format=form,
        difficulty=hardness,
        sequence=sequence,
        score=accuracy + config.format_weight * form + sequence,
        turns=turn_rewards(trajectory, config),
    )


def success_rate(trajectory: Trajectory) -> float:
    """N_succ / N_total over the calls that were run, 0 to 1; 0 where none was.

    A call that was refused (`rejected`) is not the model's doing and is left out. A cell that does nothing, comments
    only, is a call but no success.
    """
    called = [turn for turn in trajectory.turns if _counts_as_call(turn)]
    return sum(_is_success(turn) for turn in called) / len(called) if called else 0.0


def turn_rewards(trajectory: Trajectory, config: RewardConfig) -> tuple[float, ...]:
    """Immediate reward r_k of each turn: `failed_turn` where its code failed, else 0; the last turn's is always 0."""
    last = len(trajectory.turns) - 1
    return tuple(
        config.failed_turn if _failed(turn) and number < last else 0.0 for number, turn in enumerate(trajectory.turns)
    )


def _counts_as_call(turn: Turn) -> bool:
    return turn.execution is not None and turn.execution.status is not ExecutionStatus.REJECTED


def _failed(turn: Turn) -> bool:
    return _counts_as_call(turn) and turn.execution is not None and not turn.execution.succeeded


def _is_success(turn: Turn) -> bool:
    if turn.execution is None or not turn.execution.succeeded:
        return False
    return turn.execution.status is not ExecutionStatus.NO_OUTPUT or does_something(turn.code or "")


def does_something(code: str) -> bool:
    """False for code of comments, `pass`, and bare constants only.

    Code that this Python cannot parse, though another one ran it, is given the benefit of the doubt.
    """
    try:
        body = ast.parse(code).body
    except (SyntaxError, ValueError):
        return True
    return not all(
        isinstance(statement, ast.Pass)
        or (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant))
        for statement in body
    )
