"""What each rollout reports to verl's trackers, per trajectory (`reward_extra_info`)."""

from __future__ import annotations

from typing import Any

from codedance_verl.types import Grade, RewardTerms, Trajectory


def reward_extra_info(trajectory: Trajectory, grade: Grade, terms: RewardTerms, timing: Any) -> dict[str, float]:
    """Numbers of one rollout; verl averages them over a validation set by data source.

    `acc` is 1 for a right answer; `calls` counts executed cells; seconds are wall time.
    """
    executions = trajectory.executions
    return {
        "acc": float(grade.correct),
        "format": terms.format,
        "sequence_reward": terms.sequence,
        "difficulty": terms.difficulty,
        "score": terms.score,
        "turns": float(len(trajectory.turns)),
        "calls": float(len(executions)),
        "calls_succeeded": float(sum(execution.succeeded for execution in executions)),
        "masked": float(terms.masked),
        "generate_s": timing.generate_s,
        "execute_s": timing.execute_s,
        "queue_s": timing.queue_s,
    }
