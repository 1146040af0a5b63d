"""Builds the report of an experiment from the folders of its runs: SFT evaluated, then RL per seed."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from codedance_verl.errors import UserError
from codedance_verl.evaluation import metrics, training
from codedance_verl.evaluation.criteria import criteria
from codedance_verl.evaluation.examples import choose_examples
from codedance_verl.evaluation.outcomes import read_evaluation
from codedance_verl.evaluation.report import SCHEMA_VERSION, BlankControl, Curve, Report, write_report
from codedance_verl.evaluation.report_html import write_html

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
    """

    title: str
    test_file: Path
    sft_evaluation: Path
    seeds: tuple[SeedRun, ...]
    stages: Mapping[str, float]
    notes: tuple[str, ...] = ()
    max_wall_s: float | None = None


def build_report(inputs: ReportInputs) -> Report:
    """Compute every figure.

    Raises:
        UserError: no seed, or a log or metrics file is missing or broken; names the file.
    """
    if not inputs.seeds:
        raise UserError("a report needs the runs of at least one RL seed")
    before = read_evaluation(inputs.sft_evaluation / "trajectories", inputs.test_file)
    after = [read_evaluation(seed.folder / "trajectories", inputs.test_file) for seed in inputs.seeds]
    logs = [training.read_training(seed.folder / "trajectories") for seed in inputs.seeds]
    steps = [training.read_metrics(seed.folder) for seed in inputs.seeds]
    seeds = [seed.seed for seed in inputs.seeds]
    sft, rl = metrics.sft_figures(before), metrics.rl_figures(after, seeds)
    gain = metrics.gain(before, after)
    wall_s = sum(inputs.stages.values())  # seconds; stages run one after the other
    return Report(
        schema_version=SCHEMA_VERSION,
        title=inputs.title,
        versions=versions(),
        notes=inputs.notes,
        sft=sft,
        rl=rl,
        gain=gain,
        blank_image=BlankControl(metrics.blank_control([before]), metrics.blank_control(after)),
        stages=dict(inputs.stages),
        wall_s=wall_s,
        rl_steps=training.rl_steps(list(zip(seeds, steps, logs, strict=True))),
        training=tuple(Curve(seed, log.points) for seed, log in zip(seeds, logs, strict=True)),
        passed=criteria(sft, rl, gain, wall_s, inputs.max_wall_s),
    )


def write_files(inputs: ReportInputs, out: Path) -> Report:
    """Write `<out>/report.json` and `<out>/report.html`; the trajectories shown are those of the first seed."""
    report = build_report(inputs)
    exhibits = choose_examples(inputs.sft_evaluation / "trajectories", inputs.seeds[0].folder / "trajectories")
    write_report(report, out / "report.json")
    write_html(report, exhibits, out / "report.html")
    return report


def versions(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Python, the operating system, and each package that is installed."""
    found = {"python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}"}
    for package in packages:
        with suppress(metadata.PackageNotFoundError):  # an optional one, such as vLLM on a CPU
            found[package] = metadata.version(package)
    return found
