"""What a worker tells of a group and a window, read from the tally of verl's trackers."""

from __future__ import annotations

import pytest

from codedance_verl.environment.loop import Timing
from codedance_verl.environment.sandbox_client import EarlyOpening
from codedance_verl.metrics.emit import Recorder, for_trackers
from codedance_verl.reward.monitors import Finding, Rates
from codedance_verl.rollout.telemetry import RolloutStats, record_group, record_window
from codedance_verl.types import (
    Execution,
    ExecutionStatus,
    FinishReason,
    Grade,
    RenderedImage,
    RewardTerms,
    Trajectory,
    Turn,
    Verdict,
)

pytestmark = pytest.mark.usefixtures("recorder")

PICTURE = RenderedImage("0" * 64, 1, 1, b"")


def member(
    verdict: Verdict, score: float, *, calls: int = 0, masked: bool = False, finish: FinishReason = FinishReason.ANSWER
) -> RolloutStats:
    execution = Execution(ExecutionStatus.OK, images=(PICTURE, PICTURE))
    turns = (*[Turn("c", 0, 4, "1", execution)] * calls, Turn("a", 6, 9))
    terms = RewardTerms(float(verdict is Verdict.CORRECT), 1.0, 0.75, score, score, (0.5,) * len(turns), masked)
    trajectory = Trajectory("r", "s", "q", "a", turns, finish)
    early = EarlyOpening.USED if calls else EarlyOpening.IN_VAIN if masked else EarlyOpening.NONE
    timing = Timing(4.0, 2.0, 1.0, 0.5)
    return RolloutStats(trajectory, Grade(verdict, "exact"), terms, timing, 1, sampled=7, context=2, early=early)


def test_a_group_is_told_by_its_sums_and_the_means_of_its_terms(recorder: Recorder) -> None:
    group = [
        member(Verdict.CORRECT, 1.0, calls=2),
        member(Verdict.WRONG, -0.5),
        member(Verdict.UNGRADED, 9.0, masked=True),
        member(Verdict.UNGRADED, 9.0, masked=True, finish=FinishReason.INFRASTRUCTURE),
    ]
    record_group(group, "train", grade_s=0.25)
    told = for_trackers([recorder.drain()])
    sums = {
        "rollout/trajectories_total/train/answer": 3,
        "rollout/trajectories_total/train/infrastructure": 1,
        "rollout/turns_total/train": 6,
        "rollout/turns_per_trajectory/train": 1.5,
        "rollout/images_total/train": 4,
        "rollout/with_calls_total/train": 1,
        "rollout/masked_total/train": 2,
        "rollout/sandbox_retries_total/train": 4,
        "rollout/sessions_opened_early_total/train/used": 1,
        "rollout/sessions_opened_early_total/train/in_vain": 2,
        "rollout/tokens_total/train/sampled": 28,
        "rollout/tokens_total/train/feedback": 8,
        "rollout/seconds_total/train/generate": 16,
        "rollout/seconds_total/train/execute": 8,
        "rollout/seconds_total/train/queue": 4,
        "rollout/seconds_total/train/observe": 2,
        "rollout/seconds_total/train/grade": 1,
        "reward/correct_total/train": 1,
        "reward/ungraded_total/train": 1,  # what infrastructure ended could not be graded
        "reward/grading_errors_total/train": 0,  # told all the same, so that a panel has a line from the start
        "reward/term_errors_total/train": 0,
        "reward/groups_total/train/mixed": 1,
        "reward/group_accuracy_ratio/train": 0.5,
        "reward/difficulty/train": 0.75,
        "reward/term/train/accuracy": 0.5,
        "reward/term/train/format": 1.0,
        "reward/term/train/sequence": 0.25,
        "reward/term/train/custom": 0.0,
        "reward/term/train/score": 0.25,
        "reward/term/train/turns": 1.0,
    }
    assert told == {f"codedance/{name}": value for name, value in sums.items()}


@pytest.mark.parametrize(
    ("verdicts", "outcome"),
    [
        ((Verdict.CORRECT, Verdict.CORRECT), "all_right"),
        ((Verdict.WRONG, Verdict.WRONG), "all_wrong"),
        ((Verdict.UNGRADED, Verdict.UNGRADED), "masked"),
    ],
)
def test_a_group_without_contrast_is_told_as_one(
    recorder: Recorder, verdicts: tuple[Verdict, ...], outcome: str
) -> None:
    record_group([member(item, 1.0, masked=item is Verdict.UNGRADED) for item in verdicts], "val", 0.0)
    told = for_trackers([recorder.drain()])
    assert told[f"codedance/reward/groups_total/val/{outcome}"] == 1
    assert ("codedance/reward/term/val/score" in told) == (outcome != "masked")


def test_a_window_tells_every_rate_and_for_how_long_it_is_out_of_bounds(recorder: Recorder) -> None:
    rates = Rates(0.0, 0.6, 0.1, 0.0, 0.0, 0.0, 0.0)
    record_window(rates, [Finding("failed", 0.6, 0.5, 3)])
    told = for_trackers([recorder.drain()])
    assert told["codedance/monitor/rate_ratio/failed"] == 0.6
    assert told["codedance/monitor/windows_out_of_bounds/failed"] == 3
    assert told["codedance/monitor/windows_out_of_bounds/tool_rate"] == 0
    assert len(told) == 14
