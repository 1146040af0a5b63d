"""Record of a training run: learning curves from its rollouts, and the seconds of each step from its metrics."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import groupby
from pathlib import Path
from typing import NamedTuple, TypeVar

from codedance_verl.errors import UserError
from codedance_verl.evaluation.metrics import ACCURACY, EXECUTION_SUCCESS, FORMAT, TOOL_RATE, TURNS, Measure
from codedance_verl.evaluation.outcomes import Outcome, outcome_of
from codedance_verl.evaluation.report import CurvePoint, RlSteps, Seconds, SeedSplit, StepSplit
from codedance_verl.trajectories.reader import TrajectoryReader
from codedance_verl.trajectories.schema import Timing, TrajectoryRecord

_TIMED = ("generate_s", "execute_s", "queue_s", "grade_s")
"""Fields of `Timing` in the order of `RolloutSeconds`."""

_Reduced = TypeVar("_Reduced")

REWARD = Measure(lambda outcome: (outcome.score, 1.0), proportion=False)


@dataclass(frozen=True)
class StepMetrics:
    """One line of a metrics file: what verl's trackers got at the end of a step."""

    step: int
    values: Mapping[str, float]


def read_metrics(run_dir: Path) -> list[StepMetrics]:
    """Metrics of a run by step, from `<run_dir>/metrics/*.jsonl` or `<run_dir>/metrics.jsonl`.

    Each start of a run writes a file of its own; a step that was repeated after a resume counts once, the latest.
    A last line that a killed writer left unfinished is skipped. Values that are no numbers are left out.

    Raises:
        UserError: a line is broken; names file and line.
    """
    # Names of files rise with the starts of a run: what comes later replaces a step of an earlier try.
    files = [*sorted((run_dir / "metrics").glob("*.jsonl")), run_dir / "metrics.jsonl"]
    latest: dict[int, StepMetrics] = {}
    for file in files:
        if file.is_file():
            latest.update((line.step, line) for line in _metric_lines(file))
    return [latest[step] for step in sorted(latest)]


def _metric_lines(file: Path) -> Iterable[StepMetrics]:
    with file.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                value = json.loads(line)
                yield StepMetrics(int(value["step"]), _numbers(value["data"]))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                # only the last line can lack it: what a killed writer left
                if not line.endswith(b"\n"):
                    return
                raise UserError(f"{file}:{number}: not a line of metrics ({error}); delete the line") from None


def _numbers(data: Mapping[str, object]) -> dict[str, float]:
    return {
        name: float(value)
        for name, value in data.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


class RolloutSeconds(NamedTuple):
    """Seconds that the rollouts of one step spent in each activity, summed over rollouts, or a phase; None: unknown."""

    generate: float | None
    execute: float | None
    sandbox_wait: float | None
    grade: float | None


@dataclass(frozen=True)
class TrainingLog:
    """The training rollouts of one run, reduced to a point and to seconds per step."""

    points: tuple[CurvePoint, ...]
    seconds: Mapping[int, RolloutSeconds]


def read_training(log_folder: Path) -> TrainingLog:
    """Reduce `<run>/trajectories/train` step by step; one step's outcomes are held at a time.

    A step repeated after a resume replaces the rollouts of its first try. Points leave branches out, which begin where
    another rollout went wrong (`TrajectoryRecord.branch`); seconds do not.
    """
    points: list[CurvePoint] = []
    seconds: dict[int, RolloutSeconds] = {}
    for step, rollouts in steps_of(log_folder, _outcome_and_timing):
        timings = [timing for _, timing in rollouts]
        seconds[step] = RolloutSeconds(*(_sum(getattr(timing, name) for timing in timings) for name in _TIMED))
        points.append(curve_point(step, [outcome for outcome, _ in rollouts if outcome is not None]))
    return TrainingLog(tuple(points), seconds)


def _outcome_and_timing(record: TrajectoryRecord) -> tuple[Outcome | None, Timing]:
    """Outcome of a rollout, None of a branch, and its seconds."""
    return outcome_of(record) if record.branch is None else None, record.timing


def steps_of(log_folder: Path, reduce: Callable[[TrajectoryRecord], _Reduced]) -> Iterator[tuple[int, list[_Reduced]]]:
    """Each step of `<run>/trajectories/train` with what `reduce` keeps of its rollouts; one step is held at a time.

    A step repeated after a resume replaces the rollouts of its first try.

    Raises:
        UserError: there is no log, or a line of it is broken.
    """
    reader = TrajectoryReader(log_folder, "train")
    # the reader sorts files by step, which `groupby` relies on
    for step, files in groupby(reader.files(), key=lambda file: file.step):
        rollouts: dict[tuple[str, int], _Reduced] = {}
        for file in files:
            for trajectory in reader.read(file.path):
                # Files come in the order of writing: of a repeated step the last try stays.
                rollouts[trajectory.record_id, trajectory.sample] = reduce(trajectory)
        yield step, list(rollouts.values())


def curve_point(step: int, outcomes: Sequence[Outcome]) -> CurvePoint:
    """Rates over the rollouts of one step, infrastructure faults left out and counted."""
    counted = [outcome for outcome in outcomes if not outcome.infrastructure]

    def rate(measure: Measure, difficulty: str | None = None) -> float | None:
        pairs = [measure.counts(item) for item in counted if difficulty in (None, item.difficulty)]
        # A rate of sums, not a mean of rates: each observation counts alike.
        denominator = sum(below for _, below in pairs)
        return sum(above for above, below in pairs if below) / denominator if denominator else None

    return CurvePoint(
        step=step,
        rollouts=len(counted),
        excluded=len(outcomes) - len(counted),
        accuracy=rate(ACCURACY),
        reward=rate(REWARD),
        tool_rate_easy=rate(TOOL_RATE, "easy"),
        tool_rate_hard=rate(TOOL_RATE, "hard"),
        turns=rate(TURNS),
        format=rate(FORMAT),
        execution_success=rate(EXECUTION_SUCCESS),
    )


def rl_steps(runs: Sequence[tuple[int, Sequence[StepMetrics], TrainingLog]]) -> RlSteps:
    """The split of every step of each (seed, metrics, rollouts), and the mean over all of them."""
    per_seed = tuple(
        SeedSplit(seed, tuple(_split(line, log) for line in metrics if "timing_s/step" in line.values))
        for seed, metrics, log in runs
    )
    splits = [split.seconds for seed in per_seed for split in seed.steps]
    return RlSteps(len(splits), _mean(splits), per_seed)


def _split(line: StepMetrics, log: TrainingLog) -> StepSplit:
    values = line.values
    rollout = values.get("timing_s/gen")
    phase = _rollout_parts(rollout, _rollout_weights(values, log.seconds.get(line.step)))
    others = {
        "log_prob": _sum(map(values.get, ("timing_s/old_log_prob", "timing_s/ref"))),
        "update": _sum(map(values.get, ("timing_s/update_actor", "timing_s/update_critic"))),
        "weight_sync": values.get("timing_s/update_weights"),
        "checkpoint": values.get("timing_s/save_checkpoint", 0.0),
        "validation": values.get("timing_s/testing", 0.0),
    }
    # verl's own step timer stops before validation.
    total = values["timing_s/step"] + values.get("timing_s/testing", 0.0)
    # the parts are timed on their own, and may add up to more than the whole
    other = max(0.0, total - sum(part or 0.0 for part in (rollout, *others.values())))
    return StepSplit(line.step, Seconds(total=total, **phase._asdict(), **others, other=other))


def _rollout_weights(values: Mapping[str, float], logged: RolloutSeconds | None) -> RolloutSeconds:
    """Relative time in each activity: from the metrics, else from the trajectory log."""
    weights = RolloutSeconds(*(values.get(f"rollout/{name}") for name in _TIMED))
    if weights.generate is None and logged is not None:
        return logged._replace(grade=weights.grade or logged.grade)
    return weights


def _rollout_parts(rollout: float | None, weights: RolloutSeconds) -> RolloutSeconds:
    """Divide the wall seconds of the rollout phase by weight; an activity of unknown weight gets null."""
    # Rollouts overlap, so their seconds add up to more than the phase took: only their proportions are used.
    whole = sum(weight or 0.0 for weight in weights)
    if rollout is None or whole == 0:
        return RolloutSeconds(None, None, None, None)
    return RolloutSeconds(*(None if weight is None else rollout * weight / whole for weight in weights))


def _sum(values: Iterable[float | None]) -> float | None:
    """The sum of what is known, None where nothing is."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _mean(splits: Sequence[Seconds]) -> Seconds:
    columns = ([getattr(item, field.name) for item in splits] for field in fields(Seconds))
    known = ([value for value in column if value is not None] for column in columns)
    return Seconds(*(sum(values) / len(values) if values else None for values in known))
