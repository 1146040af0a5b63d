"""Trains and evaluates every variant with every seed, then writes the table and the plot:
`python -m recipes.ablation.run`. Run again, it goes on where it was.

Data, tiny model and SFT are those of the CPU demo, made once (`--demo` takes those of a finished demo). Exit codes are
those of `recipes.cpu_demo.run`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from codedance_verl.errors import UserError
from recipes.ablation.variants import VARIANTS, Variant, chosen, names_of, run_name
from recipes.cpu_demo.console import Console
from recipes.cpu_demo.environment import BACKENDS, choose_backend, remove_orphan_containers
from recipes.cpu_demo.run import alone, guarded, make_folder, prepare
from recipes.cpu_demo.runner import MIN_FREE_BYTES, Runner, check_free_space, explained_disk_errors
from recipes.cpu_demo.stages import REPOSITORY, Layout, Stage, parse_seeds, plan, rl_stage

DEFAULT_OUT = REPOSITORY / "outputs" / "ablation"


def main(arguments: list[str] | None = None) -> int:
    """Command-line entry; returns the exit code."""
    options, console = _options(arguments), Console()
    return guarded(lambda: _ablation(options, console), console)


def stages(
    out: Path, demo: Path | None, variants: Sequence[Variant], seeds: Sequence[int], backend: str
) -> list[Stage]:
    """The stages in order: what all share, a run for each variant and seed, the table."""
    shared = [] if demo else plan(out, (), backend)[:-1]  # all but the demo's report
    layout, test = Layout(demo or out), out / "test.parquet"
    runs = [
        replace(
            rl_stage(layout, out / run_name(variant.name, seed), seed, backend, variant.overrides, test),
            title=f"{variant.name}, seed {seed}",
            expected_s=600,
        )
        for seed in seeds
        for variant in variants
    ]
    return [*shared, _questions(layout, test), *runs, _table(out, test, variants, seeds)]


def _ablation(options: argparse.Namespace, console: Console) -> int:
    out: Path = options.out.resolve()
    seeds, variants = parse_seeds(options.seeds), chosen(options.variants)
    demo = _finished_demo(options.demo)
    with explained_disk_errors(out):
        make_folder(out)
        with alone(out):
            check_free_space(out, MIN_FREE_BYTES)
            backend = choose_backend(options.sandbox)
            prepare(out, backend, 0.0, console)
            try:
                Runner(out, console).run(stages(out, demo, variants, seeds, backend.name))
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


def _questions(layout: Layout, test: Path) -> Stage:
    demo_test = layout.data / "test.parquet"
    return Stage(
        name="questions",
        title="questions of the test set",
        command=(sys.executable, "-m", "recipes.ablation.questions", "--test", str(demo_test), "--out", str(test)),
        inputs=(demo_test,),
        outputs=(test,),
        timeout_s=120,
        expected_s=3,
    )


def _table(out: Path, test: Path, variants: Sequence[Variant], seeds: Sequence[int]) -> Stage:
    command = (sys.executable, "-m", "recipes.ablation.table", "--out", str(out), "--test", str(test))
    return Stage(
        name="table",
        title="table and plot",
        command=(*command, "--variants", names_of(variants), "--seeds", ",".join(map(str, seeds))),
        outputs=tuple(out / f"ablation.{kind}" for kind in ("json", "md", "png")),
        timeout_s=600,
        expected_s=30,
        always=True,
    )


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m recipes.ablation.run", description="Compares rewards on the demo.")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="output folder (default: outputs/ablation)")
    parser.add_argument("--demo", type=Path, help="take data and SFT model of this finished demo")
    parser.add_argument("--seeds", default="0,1,2", help="separated by commas (default: 0,1,2)")
    names = ", ".join(variant.name for variant in VARIANTS)
    parser.add_argument("--variants", default="all", help=f"all, or some of {names}, separated by commas")
    parser.add_argument("--sandbox", choices=BACKENDS, default="auto", help="where model code runs (default: auto)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
