"""Trains and evaluates every variant with every seed, then writes the tables and the plot:
`python -m recipes.ablation.run`. Run again, it resumes where it was; a run whose result is there is not repeated.

Seed by seed, all variants with the first before any with the second, so that a comparison which has been stopped holds
as many seeds of each. A run that fails is left out, and the others are made; two in a row end it. Data, tiny model and
SFT are those of the CPU demo, made once (`--demo` takes those of a finished demo). Exit codes are those of
`recipes.cpu_demo.run`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from codedance_verl.errors import UserError
from recipes.ablation.results import is_kept, result_file, start_file
from recipes.ablation.table import DEFAULT_SEEDS
from recipes.ablation.variants import DEFAULT, VARIANTS, Variant, chosen, names_of, run_name
from recipes.cpu_demo.console import Console
from recipes.cpu_demo.environment import BACKENDS, choose_backend, remove_orphan_containers
from recipes.cpu_demo.run import EXIT_FAILED, demo_lock, guarded, make_folder, prepare
from recipes.cpu_demo.runner import MIN_FREE_BYTES, Runner, StageFailed, check_free_space, explained_disk_errors
from recipes.cpu_demo.stages import REPOSITORY, Layout, Stage, parse_seeds, rl_stage, rl_steps
from recipes.cpu_demo.stages import plan as demo_plan

DEFAULT_OUT = REPOSITORY / "outputs" / "ablation"

MAX_FAILED_IN_A_ROW = 2
"""Failing runs after which the rest is not tried: one may be bad luck, two are more likely the machine."""

_SHARED = ("image", "data", "model", "sft", "eval_sft")
"""Stages of the demo that a comparison needs."""

_START_S, _STEP_S = 250.0, 25.0
"""Rough seconds of a run apart from its steps, and of a step, while no run has finished."""


@dataclass(frozen=True)
class Plan:
    """Comparison: what is compared, and where it goes.

    Attributes:
        out: folder of the runs, the table and the plot.
        results: folder of what each run has measured; a run that has its file there is not repeated.
        demo: folder of a demo whose data and SFT model are taken; None to make them in `out`.
        steps: RL steps of each run.
        backend: where model code runs, "docker" or "process".
    """

    out: Path
    results: Path
    demo: Path | None
    variants: tuple[Variant, ...]
    seeds: tuple[int, ...]
    steps: int
    backend: str

    @property
    def layout(self) -> Layout:
        """Paths of data and SFT model."""
        return Layout(self.demo or self.out)

    @property
    def test(self) -> Path:
        """The questions of every evaluation."""
        return self.out / "test.parquet"


def main(arguments: list[str] | None = None) -> int:
    """Command-line entry; returns the exit code."""
    options, console = _options(arguments), Console()
    return guarded(lambda: _ablation(options, console), console)


def stages(plan: Plan, without: Collection[str] = ()) -> list[Stage]:
    """The stages in order: what all share, the runs that have no result, with the tables after every seed.

    Args:
        plan: what is compared.
        without: names of runs that are left out.
    """
    missing = {
        seed: [
            variant
            for variant in plan.variants
            if not is_kept(result_file(plan.results, variant.name, seed))
            and run_name(variant.name, seed) not in without
        ]
        for seed in plan.seeds
    }
    rounds = [seed for seed in plan.seeds if missing[seed]]
    out = _shared(plan) if rounds or not is_kept(start_file(plan.results)) else []
    for seed in rounds:
        out += [stage for variant in missing[seed] for stage in _run(plan, variant, seed)]
        if seed != rounds[-1]:
            out.append(_table(plan, f"table_seed{seed}"))
    return [*out, _table(plan, "table")]


def _shared(plan: Plan) -> list[Stage]:
    """What every run begins with: data, SFT model and its evaluation."""
    made = [] if plan.demo else [stage for stage in demo_plan(plan.out, (), plan.backend) if stage.name in _SHARED]
    start = [] if is_kept(start_file(plan.results)) else [_start(plan)]
    return [*made, _questions(plan), *start]


def _run(plan: Plan, variant: Variant, seed: int) -> tuple[Stage, Stage]:
    """Training with its evaluation, and what is kept of it."""
    name, title = run_name(variant.name, seed), f"{variant.name}, seed {seed}"
    folder, result = plan.out / name, result_file(plan.results, variant.name, seed)
    run = rl_stage(plan.layout, folder, seed, plan.backend, variant.overrides, plan.test, plan.steps)
    alike = tuple(run_name(other.name, number) for number in plan.seeds for other in plan.variants)
    expected_s = _START_S + _STEP_S * plan.steps
    return (
        replace(run, title=title, expected_s=expected_s, timeout_s=max(run.timeout_s, 4 * expected_s), alike=alike),
        _keep(plan, name, title, folder, result, plan.steps),
    )


def _start(plan: Plan) -> Stage:
    """What is kept of the evaluation of the SFT model, which was asked the whole test file of the demo."""
    stage = _keep(plan, "start", "the model before RL", plan.layout.eval_sft, start_file(plan.results), steps=0)
    return replace(stage, command=(*stage.command, "--evaluated", str(plan.layout.data / "test.parquet")))


def _keep(plan: Plan, name: str, title: str, folder: Path, result: Path, steps: int) -> Stage:
    return Stage(
        name=f"{name}_result",
        title=f"result of {title}",
        command=(
            *(sys.executable, "-m", "recipes.ablation.results", "--run", str(folder), "--test", str(plan.test)),
            *("--model", str(plan.layout.sft_model), "--steps", str(steps), "--out", str(result)),
        ),
        outputs=(result,),
        timeout_s=300,
        expected_s=5,
        always=True,
    )


def _ablation(options: argparse.Namespace, console: Console) -> int:
    out: Path = options.out.resolve()
    results: Path = options.results.resolve() if options.results else out / "results"
    seeds, variants = parse_seeds(options.seeds), chosen(options.variants)
    demo = _finished_demo(options.demo)
    if options.steps < 1:
        raise UserError(f"--steps {options.steps}: must be 1 or more")
    with explained_disk_errors(out):
        make_folder(out)
        with demo_lock(out):
            check_free_space(out, MIN_FREE_BYTES)
            backend = choose_backend(options.sandbox)
            prepare(out, backend, 0.0, console)
            try:
                failed = _run_all(Plan(out, results, demo, variants, seeds, options.steps, backend.name), console)
            finally:
                remove_orphan_containers(backend)
    console.line()
    console.line((out / "ablation.md").read_text())
    console.line(f"plot  {out / 'ablation.png'}")
    for failure in failed:
        console.line(f"NOT MEASURED: {failure}")
    return EXIT_FAILED if failed else 0


def _run_all(plan: Plan, console: Console) -> list[StageFailed]:
    """Runs what is missing; returns the failures of runs. Raises StageFailed for any other stage, or two in a row."""
    failed: list[StageFailed] = []
    names = {run_name(variant.name, seed) for variant in plan.variants for seed in plan.seeds}
    kept, in_a_row = _kept(plan), 0
    while True:
        try:
            Runner(plan.out, console).run(stages(plan, [_run_of(failure) for failure in failed]))
            return failed
        except StageFailed as failure:
            before, kept = kept, _kept(plan)
            in_a_row = in_a_row + 1 if kept == before else 1
            if _run_of(failure) not in names or in_a_row == MAX_FAILED_IN_A_ROW:
                raise
            failed.append(failure)
            console.line(f"NOT MEASURED: {failure}; the others follow")


def _run_of(failure: StageFailed) -> str:
    """Name of the run whose training, or whose result, has failed."""
    return failure.stage.removesuffix("_result")


def _kept(plan: Plan) -> int:
    """Number of results there are."""
    return sum(is_kept(result_file(plan.results, item.name, seed)) for item in plan.variants for seed in plan.seeds)


def _finished_demo(folder: Path | None) -> Path | None:
    if folder is None:
        return None
    layout = Layout(folder.resolve())
    evaluated = layout.eval_sft / "trajectories" / "val"
    for path in (layout.data / "test.parquet", layout.sft_model / "config.json", evaluated):
        if not path.exists():
            raise UserError(f"--demo {folder}: has no {path}; give the folder of a finished demo, or leave it out")
    return layout.out


def _questions(plan: Plan) -> Stage:
    demo_test, test = plan.layout.data / "test.parquet", plan.test
    return Stage(
        name="questions",
        title="questions of the test set",
        command=(sys.executable, "-m", "recipes.ablation.questions", "--test", str(demo_test), "--out", str(test)),
        inputs=(demo_test,),
        outputs=(test,),
        timeout_s=120,
        expected_s=3,
    )


def _table(plan: Plan, name: str) -> Stage:
    command = (sys.executable, "-m", "recipes.ablation.table", "--results", str(plan.results), "--out", str(plan.out))
    return Stage(
        name=name,
        title="tables and plot",
        command=(*command, "--variants", names_of(plan.variants), "--seeds", ",".join(map(str, plan.seeds))),
        outputs=tuple(plan.out / f"ablation.{kind}" for kind in ("json", "md", "png")),
        timeout_s=600,
        expected_s=30,
        always=True,
    )


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m recipes.ablation.run", description="Compares rewards on the demo.")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="output folder (default: outputs/ablation)")
    parser.add_argument("--demo", type=Path, help="take data and SFT model of this finished demo")
    parser.add_argument("--results", type=Path, help="a small file a run goes here (default: results in --out)")
    parser.add_argument("--steps", type=int, default=rl_steps(), help="RL steps of a run (default: those of the demo)")
    parser.add_argument(
        "--seeds", default=DEFAULT_SEEDS, help=f"separated by commas (default: {DEFAULT_SEEDS}); all variants by seed"
    )
    names = ", ".join(variant.name for variant in VARIANTS)
    some = names_of(chosen(DEFAULT))
    parser.add_argument(
        "--variants", default=DEFAULT, help=f"all, or some of {names}, separated by commas (default: {some})"
    )
    parser.add_argument("--sandbox", choices=BACKENDS, default="auto", help="where model code runs (default: auto)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
