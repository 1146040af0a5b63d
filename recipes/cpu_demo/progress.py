"""Progress of a stage, read from the files it writes rather than from its log."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from codedance_verl.errors import UserError
from codedance_verl.evaluation.outcomes import outcome_of, read_questions
from codedance_verl.evaluation.report import CurvePoint
from codedance_verl.evaluation.training import StepMetrics, curve_point, read_metrics
from codedance_verl.trajectories.reader import TrajectoryReader

RECENT_STEPS = 5


@dataclass(frozen=True)
class Progress:
    """A few words for the progress line, and what is left where that can be estimated.

    `remaining_s` are seconds; `done` is the share of the work done by all tries, for work that advances evenly.
    """

    text: str
    remaining_s: float | None = None
    done: float | None = None

    def seconds_left(self, elapsed_s: float) -> float | None:
        """Seconds to go after `elapsed_s` over all tries; None where there is no estimate."""
        if self.remaining_s is not None:
            return self.remaining_s
        return elapsed_s * (1 - self.done) / self.done if self.done else None


ProgressSource = Callable[[], Progress | None]
"""Called every few seconds while the stage runs; None while there is nothing to say. Never raises."""


def training_progress(run: Path, total_steps: int | None = None) -> ProgressSource:
    """Step, reward, accuracy, tool rate of a training run from its metrics and its trajectory log."""

    def look() -> Progress | None:
        try:
            steps = [line for line in read_metrics(run) if line.step > 0]
            return _training_line(run, steps, total_steps) if steps else None
        except (OSError, UserError):
            return None  # a file that is being written; the stage itself says what is wrong with it

    return look


def evaluation_progress(run: Path, test_file: Path) -> ProgressSource:
    """Finished rollouts of an evaluation out of those the test file asks for."""

    def look() -> Progress | None:
        try:
            files = list((run / "trajectories" / "val").glob("*.jsonl"))
            done = sum(file.read_bytes().count(b"\n") for file in files)
            return Progress(f"{done}/{len(read_questions(test_file))} rollouts evaluated") if done else None
        except (OSError, UserError):
            return None

    return look


def in_turn(last: ProgressSource, first: ProgressSource) -> ProgressSource:
    """Progress by `last` as soon as there is any, until then by `first`."""
    return lambda: last() or first()


def _training_line(run: Path, steps: list[StepMetrics], total_steps: int | None) -> Progress:
    last = steps[-1]
    parts = [f"step {last.step}" + (f"/{total_steps}" if total_steps else "")]
    if (loss := last.values.get("train/loss")) is not None:
        parts.append(f"loss {loss:.3f}")
    if (reward := last.values.get("critic/score/mean")) is not None:
        parts.append(f"reward {reward:.2f}")
    if (point := _latest_point(run, last.step)) is not None:
        parts += _rates(point)
    recent = [line.values["timing_s/step"] for line in steps[-RECENT_STEPS:] if "timing_s/step" in line.values]
    text = ", ".join(parts)
    if not total_steps:
        return Progress(text)
    if not recent:
        return Progress(text, done=min(1.0, last.step / total_steps))
    return Progress(text, sum(recent) / len(recent) * max(0, total_steps - last.step))


def _latest_point(run: Path, step: int) -> CurvePoint | None:
    """Figures of the training rollouts of one step; None where the run has no trajectory log."""
    folder = run / "trajectories"
    if not (folder / "train").is_dir():
        return None
    reader = TrajectoryReader(folder, "train")
    files = [file for file in reader.files() if file.step == step]
    outcomes = [outcome_of(item) for file in files for item in reader.read(file.path) if item.branch is None]
    return curve_point(step, outcomes) if outcomes else None


def _rates(point: CurvePoint) -> list[str]:
    named = (
        ("accuracy", point.accuracy),
        ("tools easy", point.tool_rate_easy),
        ("tools hard", point.tool_rate_hard),
    )
    return [f"{name} {value:.0%}" for name, value in named if value is not None]
