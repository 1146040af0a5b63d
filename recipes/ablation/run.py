"""Trains and evaluates every variant with every seed, then writes the table and the plot:
`python -m recipes.ablation.run`. Run again, it goes on where it was; a run whose result is there is not repeated.

Data, tiny model and SFT are those of the CPU demo, made once (`--demo` takes those of a finished demo). Exit codes are
those of `recipes.cpu_demo.run`.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from codedance_verl.errors import UserError
from recipes.ablation.results import result_file
from recipes.ablation.variants import VARIANTS, Variant, chosen, names_of, run_name
from recipes.cpu_demo.console import Console
from recipes.cpu_demo.environment import BACKENDS, choose_backend, remove_orphan_containers
from recipes.cpu_demo.run import demo_lock, guarded, make_folder, prepare
from recipes.cpu_demo.runner import MIN_FREE_BYTES, Runner, check_free_space, explained_disk_errors
from recipes.cpu_demo.stages import REPOSITORY, Layout, Stage, parse_seeds, rl_stage, rl_steps
from recipes.cpu_demo.stages import plan as demo_plan

DEFAULT_OUT = REPOSITORY / "outputs" / "ablation"


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


def stages(plan: Plan) -> list[Stage]:
    """The stages in order: what all share, for each variant and seed without a result a run, the table."""
    shared = [] if plan.demo else demo_plan(plan.out, (), plan.backend)[:-2]  # without evaluation of SFT and report
    missing = [
        (variant, seed)
        for seed in plan.seeds
        for variant in plan.variants
        if not result_file(plan.results, variant.name, seed).exists()
    ]
    runs = [stage for variant, seed in missing for stage in _run(plan, variant, seed)]
    return [*([*shared, _questions(plan)] if runs else []), *runs, _table(plan)]


def _run(plan: Plan, variant: Variant, seed: int) -> tuple[Stage, Stage]:
    """Training with its evaluation, and what is kept of it."""
    name, title = run_name(variant.name, seed), f"{variant.name}, seed {seed}"
    folder, result = plan.out / name, result_file(plan.results, variant.name, seed)
    run = rl_stage(plan.layout, folder, seed, plan.backend, variant.overrides, plan.test, plan.steps)
    kept = Stage(
        name=f"{name}_result",
        title=f"result of {title}",
        command=(
            *(sys.executable, "-m", "recipes.ablation.results", "--run", str(folder), "--test", str(plan.test)),
            *("--model", str(plan.layout.sft_model), "--steps", str(plan.steps), "--out", str(result)),
        ),
        outputs=(result,),
        timeout_s=300,
        expected_s=5,
        always=True,
    )
    return replace(run, title=title, expected_s=600), kept


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
                Runner(out, console).run(stages(Plan(out, results, demo, variants, seeds, options.steps, backend.name)))
            finally:
                remove_orphan_containers(backend)
    console.line()
    console.line((out / "ablation.md").read_text())
    console.line(f"plot  {out / 'ablation.png'}")
    return 0


def _finished_demo(folder: Path | None) -> Path | None:
    if folder is None:
        return None
    layout = Layout(folder.resolve())
    for path in (layout.data / "test.parquet", layout.sft_model / "config.json"):
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


def _table(plan: Plan) -> Stage:
    command = (sys.executable, "-m", "recipes.ablation.table", "--results", str(plan.results), "--out", str(plan.out))
    return Stage(
        name="table",
        title="table and plot",
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
    parser.add_argument("--seeds", default="0,1,2", help="separated by commas (default: 0,1,2)")
    names = ", ".join(variant.name for variant in VARIANTS)
    parser.add_argument("--variants", default="all", help=f"all, or some of {names}, separated by commas")
    parser.add_argument("--sandbox", choices=BACKENDS, default="auto", help="where model code runs (default: auto)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
