"""What each rollout reports to verl's trackers, per trajectory (`reward_extra_info`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from codedance_verl.grading.judge.stats import JudgeStats
from codedance_verl.reward.monitors import tool_use_counts
from codedance_verl.types import ExecutionStatus, FinishReason, Grade, RewardTerms, Trajectory, Verdict

FILTER_METRIC = "outcome"
"""What verl's group filter compares: groups in which it is the same for all are dropped."""


def reward_extra_info(
    trajectory: Trajectory,
    grade: Grade,
    terms: RewardTerms,
    timing: Any,
    sandbox_retries: int = 0,
    outcome: float | None = None,
    judged: JudgeStats | None = None,
) -> dict[str, float]:
    """Numbers of one rollout; verl averages them over a validation set by data source.

    `acc` is 1 for a right answer; `calls` counts executed cells, `calls_killed` those whose sandbox was lost;
    `infrastructure` is 1 where something outside of the model ended the rollout; seconds are wall time. `outcome` is
    from `group_outcomes`; without it, `acc`. `judged` is what the judge took since the last group, shared out evenly:
    sums over rollouts are right, single values are not.
    """
    judged = judged or JudgeStats()
    executions = trajectory.executions
    seen = tool_use_counts(trajectory)
    return {
        "acc": float(grade.correct),
        "format": terms.format,
        "sequence_reward": terms.sequence,
        "custom_reward": terms.custom,
        "difficulty": terms.difficulty,
        "score": terms.score,
        "turns": float(len(trajectory.turns)),
        "calls": float(len(executions)),
        "calls_succeeded": float(sum(execution.succeeded for execution in executions)),
        "calls_killed": float(sum(execution.status is ExecutionStatus.KILLED for execution in executions)),
        "calls_invalid": float(seen["invalid"]),
        "calls_idle": float(seen["idle"]),
        "calls_repeated": float(seen["repeated"]),
        "answer_in_code": float(seen["answer_in_code"]),
        "masked": float(terms.masked),
        FILTER_METRIC: float(grade.correct) if outcome is None else outcome,
        "ungraded": float(grade.verdict is Verdict.UNGRADED and trajectory.finish is not FinishReason.INFRASTRUCTURE),
        "judge_asked": judged.asked,
        "judge_cached": judged.cached,
        "judge_requests": judged.requests,
        "judge_failures": judged.failures,
        "judge_tokens": judged.prompt_tokens + judged.completion_tokens,
        "judge_cost": judged.cost,
        "judge_wait_s": judged.wait_s,
        "infrastructure": float(trajectory.finish is FinishReason.INFRASTRUCTURE),
        "sandbox_retries": float(sandbox_retries),
        "generate_s": timing.generate_s,
        "execute_s": timing.execute_s,
        "queue_s": timing.queue_s,
        "observe_s": timing.observe_s,
    }


def group_outcomes(grades: Sequence[Grade], terms: Sequence[RewardTerms]) -> list[float]:
    """Accuracy of each rollout of a group, masked ones with that of the first that counts.

    So they do not make a group look mixed, to verl's group filter, that is all right or all wrong where it counts. A
    group of masked rollouts only is all the same, and dropped.
    """
    counted = [float(grade.correct) for grade, term in zip(grades, terms, strict=True) if not term.masked]
    stand_in = counted[0] if counted else 0.0
    return [stand_in if term.masked else float(grade.correct) for grade, term in zip(grades, terms, strict=True)]
