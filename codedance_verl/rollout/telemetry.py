"""Metrics of rollout workers: by trajectory for verl's trackers, by group and by window of the collapse monitor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from codedance_verl.environment.sandbox_client import EarlyOpening
from codedance_verl.grading.grader import ERROR
from codedance_verl.grading.judge.stats import JudgeStats
from codedance_verl.metrics import catalogue, emit
from codedance_verl.metrics.catalogue import Metric
from codedance_verl.reward.monitors import Finding, Rates, tool_use_counts
from codedance_verl.types import ExecutionStatus, FinishReason, Grade, RewardTerms, Trajectory, Verdict

if TYPE_CHECKING:
    from codedance_verl.environment.loop import Timing
    from codedance_verl.rollout.group_scorer import GroupScores

FILTER_METRIC = "outcome"
"""Metric that verl's group filter compares: groups in which it is the same for all are dropped."""


@dataclass(frozen=True)
class LeftOut:
    """Stand-in for the reward of a rollout that `sampling.keep` has left out; fields as in `RewardTerms`."""

    masked: bool
    custom_fault: str = ""


@dataclass(frozen=True)
class RolloutStats:
    """Trajectory of a scored group; `sampled` and `context` are its tokens behind the prompt by origin.

    Those that a branch has kept of another rollout are left out.
    """

    trajectory: Trajectory
    grade: Grade
    terms: RewardTerms | LeftOut
    timing: Timing
    retries: int
    sampled: int
    context: int
    early: EarlyOpening = EarlyOpening.NONE

    @classmethod
    def of_output(cls, output: Any, grade: Grade, terms: RewardTerms | LeftOut) -> RolloutStats:
        """Returns the stats of an agent loop's output."""
        extra = output.extra_fields
        branch = extra["trajectory"].branch
        mask = output.response_mask[0 if branch is None else branch.token :]
        sampled = int(sum(mask))
        timing, retries, early = extra["timing"], extra["sandbox_retries"], extra["early_opening"]
        return cls(extra["trajectory"], grade, terms, timing, retries, sampled, len(mask) - sampled, early)

    @property
    def ungraded(self) -> bool:
        """Returns whether an answer that could be graded was not."""
        return self.grade.verdict is Verdict.UNGRADED and self.trajectory.finish is not FinishReason.INFRASTRUCTURE


def record_group(group: Sequence[RolloutStats], split: str, grade_s: float) -> None:
    """Records all that was drawn for a group, in one go; `grade_s` are the wall seconds of grading by trajectory."""
    for member in group:
        trajectory = member.trajectory
        emit.add(catalogue.ROLLOUT_TRAJECTORIES, split=split, finish=str(trajectory.finish))
        emit.observe(catalogue.ROLLOUT_TURNS_EACH, len(trajectory.turns), split=split)
    for metric, amount in _sums(group).items():
        emit.add(metric, amount, split=split)
    for outcome in (EarlyOpening.USED, EarlyOpening.IN_VAIN):
        early = sum(member.early is outcome for member in group)
        emit.add(catalogue.ROLLOUT_OPENED_EARLY, early, split=split, outcome=str(outcome))
    emit.add(catalogue.ROLLOUT_TOKENS, sum(item.sampled for item in group), split=split, origin="sampled")
    emit.add(catalogue.ROLLOUT_TOKENS, sum(item.context for item in group), split=split, origin="feedback")
    for activity, seconds in _seconds(group, grade_s).items():
        emit.add(catalogue.ROLLOUT_SECONDS, seconds, split=split, activity=activity)
    # of the reward only what is trained on: rollouts that were left out have no part in the group's accuracy
    # nor have branches, which are scored by themselves
    counted = [member for member in group if member.trajectory.branch is None]
    _record_rewards([member.terms for member in counted if isinstance(member.terms, RewardTerms)], split)


def record_branches(rollouts: Sequence[Trajectory], scores: GroupScores, differs: int) -> None:
    """Records a group of training in which some rollouts waited for the others (`sampling.redraw_calls`).

    `differs`: branches that were drawn from their start, as a replayed cell came to another result.
    """
    branches = [k for k, rollout in enumerate(rollouts) if rollout.branch is not None]
    masked = sum(scores.all_terms[k].masked for k in branches)
    right = sum(scores.grades[k].correct for k in branches if not scores.all_terms[k].masked)
    counts = {"right": right, "wrong": len(branches) - masked - right, "masked": masked, "replay_differs": differs}
    for result, count in counts.items():
        emit.add(catalogue.ROLLOUT_BRANCHES, count, result=result)
    tried = "recovered" if right else "not_recovered"
    emit.add(catalogue.ROLLOUT_REDRAWS, result=tried if branches else "none")


def record_window(rates: Rates, findings: Sequence[Finding]) -> None:
    """Records a full window of the collapse monitor."""
    lasting = {finding.name: finding.windows for finding in findings}
    for sign, rate in asdict(rates).items():
        emit.set_gauge(catalogue.MONITOR_RATE, rate, sign=sign)
        emit.set_gauge(catalogue.MONITOR_WINDOWS, lasting.get(sign, 0), sign=sign)


def _sums(group: Sequence[RolloutStats]) -> dict[Metric, float]:
    executions = [execution for item in group for execution in item.trajectory.executions]
    return {
        catalogue.ROLLOUT_TURNS: sum(len(item.trajectory.turns) for item in group),
        catalogue.ROLLOUT_IMAGES: sum(len(execution.images) for execution in executions),
        catalogue.ROLLOUT_WITH_CALLS: sum(bool(item.trajectory.executions) for item in group),
        catalogue.ROLLOUT_MASKED: sum(item.terms.masked for item in group),
        catalogue.ROLLOUT_RETRIES: sum(item.retries for item in group),
        catalogue.REWARD_CORRECT: sum(item.grade.correct for item in group),
        catalogue.REWARD_UNGRADED: sum(item.ungraded for item in group),
        catalogue.REWARD_GRADING_ERRORS: sum(item.grade.rule == ERROR for item in group),
        catalogue.REWARD_TERM_ERRORS: sum(bool(item.terms.custom_fault) for item in group),
    }


def _seconds(group: Sequence[RolloutStats], grade_s: float) -> dict[str, float]:
    return {
        "generate": sum(item.timing.generate_s for item in group),
        "execute": sum(item.timing.execute_s for item in group),
        "queue": sum(item.timing.queue_s for item in group),
        "observe": sum(item.timing.observe_s for item in group),
        "grade": grade_s * len(group),
    }


def _record_rewards(group: Sequence[RewardTerms], split: str) -> None:
    counted = [terms for terms in group if not terms.masked]
    if not counted:
        emit.add(catalogue.REWARD_GROUPS, split=split, outcome="masked")
        return
    accuracy = sum(terms.accuracy for terms in counted) / len(counted)
    outcome = {0.0: "all_wrong", 1.0: "all_right"}.get(accuracy, "mixed")
    emit.add(catalogue.REWARD_GROUPS, split=split, outcome=outcome)
    emit.observe(catalogue.REWARD_ACCURACY, accuracy, split=split)
    emit.set_gauge(catalogue.REWARD_DIFFICULTY, counted[0].difficulty, split=split)
    for name, value in _mean_terms(counted).items():
        emit.set_gauge(catalogue.REWARD_TERM, value, split=split, term=name)


def _mean_terms(terms: Sequence[RewardTerms]) -> dict[str, float]:
    sums = {
        "accuracy": sum(item.accuracy for item in terms),
        "format": sum(item.format for item in terms),
        "sequence": sum(item.sequence for item in terms),
        "custom": sum(item.custom for item in terms),
        "score": sum(item.score for item in terms),
        "turns": sum(sum(item.turns) for item in terms),
    }
    return {name: value / len(terms) for name, value in sums.items()}


def reward_extra_info(
    trajectory: Trajectory,
    grade: Grade,
    terms: RewardTerms,
    timing: Timing,
    sandbox_retries: int,
    outcome: float,
    judged: JudgeStats,
) -> dict[str, float]:
    """Returns the numbers of one rollout; verl averages them over a validation set by data source.

    `acc` is 1 for a right answer; `calls` counts executed cells, `calls_killed` those whose sandbox was lost;
    `infrastructure` is 1 where something outside of the model ended the rollout; seconds are wall time. `outcome` is
    from `group_outcomes`. `judged` is the judge's work since the last group, shared out evenly: sums over rollouts are
    right, single values are not.
    """
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
        FILTER_METRIC: outcome,
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
    """Returns the accuracy of each rollout of a group, masked ones with that of the first that counts.

    So they do not make a group look mixed, to verl's group filter, that is all right or all wrong where it counts. A
    group of masked rollouts only is all the same, and dropped.
    """
    counted = [float(grade.correct) for grade, term in zip(grades, terms, strict=True) if not term.masked]
    stand_in = counted[0] if counted else 0.0
    return [stand_in if term.masked else float(grade.correct) for grade, term in zip(grades, terms, strict=True)]
