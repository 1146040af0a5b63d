"""Builds the report of an experiment from the folders of its runs: SFT evaluated, then RL per seed."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

from codedance_verl.errors import UserError
from codedance_verl.evaluation import controls, metrics, training
from codedance_verl.evaluation.criteria import criteria
from codedance_verl.evaluation.discovery import discovery, discovery_examples
from codedance_verl.evaluation.effects import NO_ROLES, Controls, KindRoles
from codedance_verl.evaluation.examples import choose_examples
from codedance_verl.evaluation.ledger import LedgerLine, evaluation_lines, training_lines, write_ledger
from codedance_verl.evaluation.outcomes import read_checkpoints, read_evaluation, read_questions
from codedance_verl.evaluation.report import SCHEMA_VERSION, BlankControl, Curve, Report, write_report
from codedance_verl.evaluation.report_html import write_html
from codedance_verl.evaluation.tool_effect import tool_effect

PACKAGES = ("codedance_verl", "verl", "torch", "vllm", "ray", "transformers", "numpy")


@dataclass(frozen=True)
class SeedRun:
    """The RL run of one seed, which validated its model after its last step (`trainer.test_freq`)."""

    seed: int
    folder: Path


@dataclass(frozen=True)
class ReportInputs:
    """Places of everything a report is made of. Run folders hold `trajectories/` and, for RL runs, `metrics/`.

    Attributes:
        test_file: the parquet file that all runs were evaluated on.
        stages: wall seconds by stage, in order.
        max_wall_s: promised bound on their sum; None where nothing was promised.
        roles: kinds of the test file that have criteria of their own.
    """

    title: str
    test_file: Path
    sft_evaluation: Path
    seeds: tuple[SeedRun, ...]
    stages: Mapping[str, float]
    notes: tuple[str, ...] = ()
    max_wall_s: float | None = None
    roles: KindRoles = NO_ROLES

    @property
    def logs(self) -> dict[int, Path]:
        """Trajectory log of each seed."""
        return {seed.seed: seed.folder / "trajectories" for seed in self.seeds}


def build_report(inputs: ReportInputs) -> Report:
    """Compute every figure.

    Raises:
        UserError: no seed, or a log or metrics file is missing or broken; names the file. Or seeds were last validated
            at different steps.
    """
    if not inputs.seeds:
        raise UserError("a report needs the runs of at least one RL seed")
    before = read_evaluation(inputs.sft_evaluation / "trajectories", inputs.test_file)
    after = [read_evaluation(log, inputs.test_file) for log in inputs.logs.values()]
    checkpoints = {seed: read_checkpoints(log) for seed, log in inputs.logs.items()}
    _check_last_steps({seed: max(steps) for seed, steps in checkpoints.items()})
    trained = [training.read_training(log) for log in inputs.logs.values()]
    steps = [training.read_metrics(seed.folder) for seed in inputs.seeds]
    asked = read_questions(inputs.test_file)
    chances = controls.chances(asked)
    seeds = list(inputs.logs)
    report = Report(
        schema_version=SCHEMA_VERSION,
        title=inputs.title,
        versions=versions(),
        notes=inputs.notes,
        sft=metrics.sft_figures(before),
        rl=metrics.rl_figures(after, seeds),
        gain=metrics.gain(before, after),
        blank_image=BlankControl(metrics.blank_control([before]), metrics.blank_control(after)),
        stages=dict(inputs.stages),
        wall_s=sum(inputs.stages.values()),  # seconds; stages run one after the other
        rl_steps=training.rl_steps(list(zip(seeds, steps, trained, strict=True))),
        training=tuple(Curve(seed, log.points) for seed, log in zip(seeds, trained, strict=True)),
        passed={},
        greedy_gain=controls.greedy_gain(before, after),
        controls=Controls(controls.controls([before], chances), controls.controls(after, chances)),
        tool_effect=tool_effect(before.outcomes, checkpoints, asked),
        discovery=discovery(inputs.roles.undemonstrated, list(inputs.logs.items())),
        look_alikes=controls.look_alikes(inputs.roles.look_alikes, before, after),
    )
    return replace(report, passed=criteria(report, inputs.roles, inputs.max_wall_s, asked))


def _check_last_steps(steps: Mapping[int, int]) -> None:
    """Raises UserError where seeds, given with their last validated step, ended at different ones."""
    (first, last), *others = steps.items()
    for seed, step in others:
        if step != last:  # their mean would be that of no model
            raise UserError(
                f"seed {first} was last validated at step {last}, seed {seed} at step {step}; "
                "train both to the same step, or leave one out"
            )


def write_files(inputs: ReportInputs, out: Path) -> Report:
    """Write `report.json`, `report.html` and `ledger.jsonl` into `out`.

    The examples are of the first seed, the first calls on kinds without demonstrated code of every seed.
    """
    report = build_report(inputs)
    examples = choose_examples(inputs.sft_evaluation / "trajectories", inputs.seeds[0].folder / "trajectories")
    write_ledger(_ledger_lines(inputs), out / "ledger.jsonl")
    write_report(report, out / "report.json")
    write_html(report, examples, out / "report.html", discovery_examples(report.discovery, inputs.logs))
    return report


def _ledger_lines(inputs: ReportInputs) -> Iterator[LedgerLine]:
    start = read_evaluation(inputs.sft_evaluation / "trajectories", inputs.test_file)
    yield from evaluation_lines(start.outcomes, None, 0)
    for seed, log in inputs.logs.items():
        yield from training_lines(log, seed)
        for step, outcomes in read_checkpoints(log).items():
            yield from evaluation_lines(outcomes, seed, step)


def versions(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Python, the operating system, and each package that is installed."""
    found = {"python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}"}
    for package in packages:
        with suppress(metadata.PackageNotFoundError):  # an optional one, such as vLLM on a CPU
            found[package] = metadata.version(package)
    return found
