"""Writes the demo's report: `python -m recipes.cpu_demo.report --out outputs/demo --seeds 0,1`."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from codedance_verl.errors import UserError
from codedance_verl.evaluation.build import ReportInputs, SeedRun, write_files
from codedance_verl.evaluation.demonstrated import undemonstrated_kinds
from codedance_verl.evaluation.effects import KindRoles
from recipes.cpu_demo.environment import Environment, read_environment
from recipes.cpu_demo.kind_roles import LOOK_ALIKES, RETURNED_IMAGE
from recipes.cpu_demo.markers import StageRecords
from recipes.cpu_demo.stages import Layout, parse_seeds, plan

TITLE = "CPU demo: a tiny vision-language model learns when to write code"
MAX_WALL_S = 45 * 60.0


def report_inputs(out: Path, seeds: Sequence[int], environment: Environment, report_s: float) -> ReportInputs:
    """Folders and stage times of a demo; `report_s` are the seconds the report has taken so far."""
    layout = Layout(out)
    test_file = layout.data / "test.parquet"
    return ReportInputs(
        title=TITLE,
        test_file=test_file,
        sft_evaluation=layout.eval_sft,
        seeds=tuple(SeedRun(seed, layout.rl(seed)) for seed in seeds),
        stages=stage_seconds(out, seeds, environment) | {"report": report_s},
        notes=environment.notes,
        max_wall_s=MAX_WALL_S,
        roles=KindRoles(
            undemonstrated=undemonstrated_kinds(layout.data / "sft.parquet", test_file),
            returned_image=RETURNED_IMAGE,
            look_alikes=LOOK_ALIKES,
        ),
    )


def stage_seconds(out: Path, seeds: Sequence[int], environment: Environment) -> dict[str, float]:
    """Wall seconds of the finished stages in order, set-up first where it was measured."""
    records = StageRecords(out)
    seconds = {"setup": environment.setup_s} if environment.setup_s else {}
    for stage in plan(out, seeds, environment.backend):
        if (marker := records.marker(stage.name)) is not None:
            seconds[stage.name] = marker.wall_s
    return seconds


def main(arguments: list[str] | None = None) -> int:
    began = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the demo")
    parser.add_argument("--seeds", required=True, help="RL seeds, separated by commas")
    options = parser.parse_args(arguments)
    try:
        out, seeds = options.out.resolve(), parse_seeds(options.seeds)
        environment = read_environment(out)
        write_files(report_inputs(out, seeds, environment, time.monotonic() - began), out)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
