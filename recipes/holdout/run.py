"""Hold-out study from a finished demo: `python -m recipes.holdout.run --demo outputs/demo --category crop`.

SFT, its evaluation, and RL with each seed are those of the demo; the demonstrations alone differ. Run again, it
resumes. Exit codes are those of `recipes.cpu_demo.run`.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from codedance_verl.errors import UserError
from codedance_verl.operations.catalogue import Category
from recipes.cpu_demo.console import Console
from recipes.cpu_demo.environment import BACKENDS, choose_backend, remove_orphan_containers
from recipes.cpu_demo.run import demo_lock, guarded, make_folder, prepare
from recipes.cpu_demo.runner import MIN_FREE_BYTES, Runner, check_free_space, explained_disk_errors
from recipes.cpu_demo.stages import REPOSITORY, Layout, Stage, parse_seeds, plan

DEFAULT_OUT = REPOSITORY / "outputs" / "holdout"
_OF_THE_DEMO = ("image", "data", "model", "report")
"""Stages of the demo that the study takes over or has its own for."""


def stages(demo: Layout, out: Path, category: Category, seeds: tuple[int, ...], backend: str) -> list[Stage]:
    """Stages in order: the demonstrations, SFT, its evaluation, RL, the table."""
    layout = Layout(out)
    data = Stage(
        name="demonstrations",
        title=f"demonstrations without {category}",
        command=(
            *(sys.executable, "-m", "recipes.holdout.demonstrations", "--data", str(demo.data)),
            *("--category", str(category), "--out", str(layout.data)),
        ),
        inputs=(demo.data / "sft.parquet",),
        outputs=(layout.data / "sft.parquet", layout.data / "test.parquet"),
        folder=layout.data,
    )
    table = Stage(
        name="table",
        title="table",
        command=(
            *(sys.executable, "-m", "recipes.holdout.table", "--out", str(out), "--demo", str(demo.out)),
            *("--category", str(category), "--seeds", ",".join(map(str, seeds))),
        ),
        outputs=(out / "holdout.md",),
        timeout_s=600,
        expected_s=60,
        always=True,
    )
    trained = [stage for stage in plan(out, seeds, backend) if stage.name not in _OF_THE_DEMO]
    return [data, *trained, table]


def _study(options: argparse.Namespace, console: Console) -> int:
    out: Path = options.out.resolve()
    demo, seeds = Layout(options.demo.resolve()), parse_seeds(options.seeds)
    for needed in (demo.data / "sft.parquet", demo.tiny / "config.json", *(demo.rl(seed) for seed in seeds)):
        if not needed.exists():
            raise UserError(f"--demo {options.demo}: has no {needed}; give the folder of a demo with these seeds")
    with explained_disk_errors(out):
        make_folder(out)
        with demo_lock(out):
            check_free_space(out, MIN_FREE_BYTES)
            backend = choose_backend(options.sandbox)
            prepare(out, backend, 0.0, console)
            shutil.copytree(demo.tiny, Layout(out).tiny, dirs_exist_ok=True)
            try:
                Runner(out, console).run(stages(demo, out, options.category, seeds, backend.name))
            finally:
                remove_orphan_containers(backend)
    console.line()
    console.line((out / "holdout.md").read_text())
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Command-line entry; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m recipes.holdout.run", description=__doc__)
    parser.add_argument("--demo", type=Path, required=True, help="folder of a finished demo")
    parser.add_argument("--category", type=Category, choices=list(Category), default=Category.CROP)
    parser.add_argument("--seeds", default="0,1", help="seeds of RL, which the demo must have too")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT)
    parser.add_argument("--sandbox", choices=BACKENDS, default="auto")
    options = parser.parse_args(arguments)
    console = Console()
    return guarded(lambda: _study(options, console), console)


if __name__ == "__main__":
    sys.exit(main())
