"""What a rollout worker tells of its groups and of its collapse monitor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from codedance_verl.environment.loop import Timing
from codedance_verl.grading.grader import ERROR
from codedance_verl.metrics import catalogue, emit
from codedance_verl.metrics.catalogue import Metric
from codedance_verl.reward.monitors import Finding, Rates
from codedance_verl.types import FinishReason, Grade, RewardTerms, Trajectory, Verdict


@dataclass(frozen=True)
class RolloutStats:
    """One scored trajectory of a group; `sampled` and `context` are its tokens behind the prompt by origin.

    `kept` is False where `sampling.keep` has left it out; its terms are then those it had among all that were drawn.
    """

    trajectory: Trajectory
    grade: Grade
    terms: RewardTerms
    timing: Timing
    retries: int
    sampled: int
    context: int
    kept: bool = True

    @property
    def ungraded(self) -> bool:
        """Whether an answer that could be graded was not."""
        return self.grade.verdict is Verdict.UNGRADED and self.trajectory.finish is not FinishReason.INFRASTRUCTURE


def record_group(group: Sequence[RolloutStats], split: str, grade_s: float) -> None:
    """Tell of all that was drawn for a group, in one go; `grade_s` are the wall seconds of grading by trajectory."""
    for member in group:
        trajectory = member.trajectory
        emit.add(catalogue.ROLLOUT_TRAJECTORIES, split=split, finish=str(trajectory.finish))
        emit.observe(catalogue.ROLLOUT_TURNS_EACH, len(trajectory.turns), split=split)
    for metric, amount in _sums(group).items():
        emit.add(metric, amount, split=split)
    emit.add(catalogue.ROLLOUT_TOKENS, sum(item.sampled for item in group), split=split, origin="sampled")
    emit.add(catalogue.ROLLOUT_TOKENS, sum(item.context for item in group), split=split, origin="feedback")
    for activity, seconds in _seconds(group, grade_s).items():
        emit.add(catalogue.ROLLOUT_SECONDS, seconds, split=split, activity=activity)
    _tell_rewards([member for member in group if member.kept], split)


def record_window(rates: Rates, findings: Sequence[Finding]) -> None:
    """Tell of a full window of the collapse monitor."""
    lasting = {finding.name: finding.windows for finding in findings}
    for sign, rate in asdict(rates).items():
        emit.set_gauge(catalogue.GUARD_RATE, rate, sign=sign)
        emit.set_gauge(catalogue.GUARD_WINDOWS, lasting.get(sign, 0), sign=sign)


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


def _tell_rewards(group: Sequence[RolloutStats], split: str) -> None:
    counted = [item for item in group if not item.terms.masked]
    if not counted:
        emit.add(catalogue.REWARD_GROUPS, split=split, outcome="masked")
        return
    accuracy = sum(item.grade.correct for item in counted) / len(counted)
    outcome = {0.0: "all_wrong", 1.0: "all_right"}.get(accuracy, "mixed")
    emit.add(catalogue.REWARD_GROUPS, split=split, outcome=outcome)
    emit.observe(catalogue.REWARD_ACCURACY, accuracy, split=split)
    emit.set_gauge(catalogue.REWARD_DIFFICULTY, counted[0].terms.difficulty, split=split)
    for name, value in _mean_terms([item.terms for item in counted]).items():
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
