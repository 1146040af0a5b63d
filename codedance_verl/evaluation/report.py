"""Types of `report.json`: every figure with its interval. Reading checks the file against them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import msgspec

from codedance_verl.errors import UserError
from codedance_verl.evaluation.effects import Checkpoint, Controls, GreedyGain, KindDiscovery, LookAlikes
from codedance_verl.evaluation.figures import Figure as Figure
from codedance_verl.evaluation.figures import Groups as Groups
from codedance_verl.runtime.atomic import write_atomically
from codedance_verl.trajectories.schema import in_words

SCHEMA_VERSION = 2
"""Of the reports that are written. Version 1 lacks what `Report` gives a default."""

_READ_VERSIONS = (1, SCHEMA_VERSION)


@dataclass(frozen=True)
class GroupFigures:
    """Figures of one model on one group of questions (all, easy, hard, or one kind).

    All but `accuracy_greedy` are of rollouts sampled at temperature 1, the training distribution.

    Attributes:
        questions: different questions in the group.
        accuracy: share of right answers.
        accuracy_greedy: share of right answers at temperature 0.
        tool_rate: share of rollouts in which code ran at least once.
        turns: mean assistant turns.
        execution_success: share of executions that ran to their end.
        format: share of well-formed rollouts (format term of the reward is 0).
    """

    questions: int
    accuracy: Figure
    accuracy_greedy: Figure
    tool_rate: Figure
    turns: Figure
    execution_success: Figure
    format: Figure


@dataclass(frozen=True)
class Excluded:
    """Rollouts that figures do not count, all variants and seeds together, and why.

    Attributes:
        total: rollouts there should be, the excluded ones among them.
        infrastructure: the sandbox or the engine failed; out of every figure.
        ungraded: no verdict on the answer; out of the accuracies alone.
        missing: rows of the test file that left no rollout.
        cut_off: lines of the log that a killed writer left unfinished.
    """

    total: int
    infrastructure: int
    ungraded: int
    missing: int
    cut_off: int

    @property
    def share(self) -> float:
        """Share of the rollouts that at least one figure had to do without."""
        return (self.infrastructure + self.ungraded + self.missing) / self.total if self.total else 1.0


@dataclass(frozen=True)
class SftFigures(Groups[GroupFigures]):
    """The model before RL."""

    excluded: Excluded


@dataclass(frozen=True)
class _Seeds:
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class RlFigures(SftFigures, _Seeds):  # fields of the last base come first, in the file too
    """The models after RL: every figure is the mean over the seeds."""


@dataclass(frozen=True)
class GroupGain:
    """RL minus SFT, question by question; `n` counts the questions both have."""

    accuracy: Figure
    accuracy_greedy: Figure


Gain = Groups[GroupGain]


@dataclass(frozen=True)
class BlankFigures:
    """Accuracy with the image replaced by a plain one, and on the same questions with the real image."""

    blank: Figure
    real: Figure


@dataclass(frozen=True)
class BlankControl:
    sft: Groups[BlankFigures]
    rl: Groups[BlankFigures]


@dataclass(frozen=True)
class Seconds:
    """Wall seconds of an RL step by activity; null where the run did not record it.

    verl times the rollout phase as a whole. Within it generating, executing, waiting for a sandbox and grading overlap
    between rollouts, so the phase is divided in proportion to the seconds that rollouts spent in each.

    Attributes:
        total: the whole step, validation included.
        generate, execute, sandbox_wait, grade: parts of the rollout phase.
        log_prob: log-probs of the actor and the reference.
        update: the policy update.
        weight_sync: weights from the actor to vLLM.
        checkpoint, validation: where the step had one, else 0.
        other: what is left of the step.
    """

    total: float | None
    generate: float | None
    execute: float | None
    sandbox_wait: float | None
    grade: float | None
    log_prob: float | None
    update: float | None
    weight_sync: float | None
    checkpoint: float | None
    validation: float | None
    other: float | None


PARTS = tuple(field.name for field in fields(Seconds) if field.name != "total")
"""Activities of a step."""


@dataclass(frozen=True)
class StepSplit:
    step: int
    seconds: Seconds


@dataclass(frozen=True)
class SeedSplit:
    seed: int
    steps: tuple[StepSplit, ...]


@dataclass(frozen=True)
class RlSteps:
    """The split of every RL step, and its mean over `measured` steps of all seeds."""

    measured: int
    mean_seconds: Seconds
    per_seed: tuple[SeedSplit, ...]


@dataclass(frozen=True)
class CurvePoint:
    """Training rollouts of one step: shares in [0, 1], `reward` and `turns` means; null where there were none."""

    step: int
    rollouts: int
    excluded: int
    accuracy: float | None
    reward: float | None
    tool_rate_easy: float | None
    tool_rate_hard: float | None
    turns: float | None
    format: float | None
    execution_success: float | None


@dataclass(frozen=True)
class Curve:
    seed: int
    points: tuple[CurvePoint, ...]


@dataclass(frozen=True)
class Criterion:
    """A promise of the recipe, the figure it is held against, and whether it is kept."""

    target: str
    passed: bool
    before: float | None
    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Report:
    """The whole of `report.json`.

    Attributes:
        versions: names and versions of what ran.
        notes: what a reader must know to judge the figures (sandbox backend, hardware).
        stages: wall seconds by stage, summed over interrupted tries.
        wall_s: their sum.
        training: learning curves from the rollouts of training.
        passed: the criteria by name.
        greedy_gain: gain of the greedy policy; null in reports of version 1.
        controls: the models with an image, its returned images, or its tools changed; null in version 1.
        tool_effect: what tools win and lose at each checkpoint, the start of RL first; empty where the test set has no
            questions without tools.
        discovery: use of code on the kinds that were never demonstrated with a call, by kind.
        look_alikes: pairs of kinds that are asked in the same words, of which one needs code.
    """

    schema_version: int
    title: str
    versions: dict[str, str]
    notes: tuple[str, ...]
    sft: SftFigures
    rl: RlFigures
    gain: Gain
    blank_image: BlankControl
    stages: dict[str, float]
    wall_s: float
    rl_steps: RlSteps
    training: tuple[Curve, ...]
    passed: dict[str, Criterion]
    greedy_gain: GreedyGain | None = None
    controls: Controls | None = None
    tool_effect: tuple[Checkpoint, ...] = ()
    discovery: dict[str, KindDiscovery] = field(default_factory=dict)
    look_alikes: tuple[LookAlikes, ...] = ()

    @property
    def all_passed(self) -> bool:
        return all(criterion.passed for criterion in self.passed.values())


def write_report(report: Report, path: Path) -> None:
    """Writes strict JSON (no NaN), keys in the order of the types; atomically, so that no reader sees half a report."""
    write_atomically(path, json.dumps(asdict(report), indent=1, allow_nan=False, ensure_ascii=False) + "\n")


def read_report(path: Path) -> Report:
    """Read and check a report.

    Raises:
        UserError: not readable, another schema version, or the dotted name of the field that does not fit.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a readable report ({error}); make the report again") from None
    version = value.get("schema_version") if isinstance(value, dict) else None
    if version not in _READ_VERSIONS:
        known = " and ".join(map(str, _READ_VERSIONS))
        raise UserError(f"{path}: schema version {version!r}, this code reads {known}; make the report again")
    try:
        return parse_report(value)
    except SchemaError as error:
        raise UserError(f"{path}: {error}; make the report again") from None


class SchemaError(ValueError):
    """A value does not fit the report's types; the message names the dotted field."""


def parse_report(value: Any) -> Report:
    """A decoded report. Raises SchemaError naming the dotted field that is missing, unknown or does not fit."""
    try:
        report = msgspec.convert(value, Report)
    except msgspec.ValidationError as error:
        raise SchemaError(f"report.{in_words(error)}") from None
    _check(report, value, "report")
    return report


def _check(found: Any, given: Any, name: str) -> None:
    """Raises SchemaError for what types do not say: fields that are unknown, and figures outside their interval."""
    if is_dataclass(found):
        if isinstance(found, Figure):
            _check_figure(found, name)
        parts: Mapping[Any, Any] = {field.name: getattr(found, field.name) for field in fields(found)}
        if unknown := sorted(set(given) - set(parts)):
            raise SchemaError(f"{name}.{unknown[0]} is unknown")
    elif isinstance(found, dict):
        parts = found
    else:
        parts = dict(enumerate(found)) if isinstance(found, tuple) else {}
    for key, part in parts.items():
        if isinstance(given, list) or key in given:
            _check(part, given[key], f"{name}.{key}")


def _check_figure(figure: Figure, name: str) -> None:
    value, low, high = figure.value, figure.low, figure.high
    if (low is None) != (high is None) or (value is None and low is not None):
        raise SchemaError(f"{name} has half an interval")
    slack = 1e-9  # means are rounded in another order than interval ends
    if value is not None and low is not None and high is not None and not low - slack <= value <= high + slack:
        raise SchemaError(f"{name}: the value {value} lies outside its interval [{low}, {high}]")
