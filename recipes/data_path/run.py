"""The path of data from a finished demo: `python -m recipes.data_path.run --demo outputs/demo --seeds 0,1,2`.

A pool of questions, the filter, the synthesis, the data of both arms, then for each seed and arm SFT, its evaluation,
RL and its evaluation, and the table. Run again, it resumes. Exit codes are those of `recipes.cpu_demo.run`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from codedance_verl.errors import UserError
from recipes.cpu_demo.console import Console
from recipes.cpu_demo.environment import BACKENDS, choose_backend, remove_orphan_containers
from recipes.cpu_demo.run import demo_lock, guarded, make_folder, prepare
from recipes.cpu_demo.runner import MIN_FREE_BYTES, Runner, check_free_space, explained_disk_errors
from recipes.cpu_demo.stages import REPOSITORY, Layout, Stage, parse_seeds, plan
from recipes.data_path.paths import (
    ARMS,
    OF_THE_DEMO,
    QUESTIONS,
    RL_TRAIN,
    SAMPLES,
    SFT,
    TRIES,
    Study,
    layout,
    run_of_rl,
)

DEFAULT_OUT = REPOSITORY / "outputs" / "data_path"
LEAST_QUESTIONS = 150
"""25 of each kind: a step of RL takes 32 that are medium or hard."""

_HOUR_S = 3_600.0
_TRAINED = ("sft", "eval_sft")
"""Stages of the demo, beside RL, that each arm has with each seed."""


def stages(study: Study) -> list[Stage]:
    """Stages in order."""
    found = [stage for stage in plan(study.out, (), study.backend) if stage.name == "image"]
    found += [_pool(study), _filter(study), _synthesize(study)]
    for seed in study.seeds:
        found.append(_arms(study, seed))
        found += [stage for arm in ARMS for stage in _training(study, arm, seed)]
    return [*found, _table(study)]


def _pool(study: Study) -> Stage:
    return Stage(
        name="pool",
        title="pool of questions",
        command=_python("pool", "--count", study.questions, "--out", study.pool),
        outputs=(study.pool,),
        folder=study.pool.parent,
        expected_s=20,
    )


def _filter(study: Study) -> Stage:
    return Stage(
        name="filter",
        title="weak-to-strong filter",
        command=_python(
            *("filter", "--pool", study.pool, "--demo", study.demo.out, "--out", study.strata),
            *("--samples", study.samples, "--sandbox", study.backend),
        ),
        inputs=(study.pool, study.demo.sft_model),
        outputs=(study.strata / "filter.json",),
        folder=study.strata,
        timeout_s=6 * _HOUR_S,
        expected_s=1_500,
        resumable=True,
    )


def _synthesize(study: Study) -> Stage:
    return Stage(
        name="synthesize",
        title="synthesis of demonstrations",
        command=_python(
            *("synthesize", "--pool", study.pool, "--strata", study.strata, "--demo", study.demo.out),
            *("--out", study.synthesis, "--tries", study.tries, "--sandbox", study.backend),
        ),
        inputs=(study.pool, *study.strata_files),
        outputs=(study.synthesis / SFT,),
        folder=study.synthesis,
        timeout_s=6 * _HOUR_S,
        expected_s=900,
        resumable=True,
    )


def _arms(study: Study, seed: int) -> Stage:
    data = [layout(study.out, arm, seed).data for arm in ARMS]
    return Stage(
        name=f"arms_seed{seed}",
        title=f"data of both arms, seed {seed}",
        command=_python(
            *("arms", "--out", study.out, "--pool", study.pool, "--strata", study.strata),
            *("--synthesis", study.synthesis, "--demo", study.demo.out, "--seed", seed),
        ),
        inputs=(study.pool, *study.strata_files, study.synthesis / SFT, *_taken(study.demo), study.demo.tiny),
        outputs=tuple(folder / name for folder in data for name in (SFT, RL_TRAIN, *OF_THE_DEMO)),
        expected_s=30,
    )


def _training(study: Study, arm: str, seed: int) -> list[Stage]:
    """SFT, its evaluation and RL of an arm as in the demo, but for the names, and the seed of SFT."""
    of = layout(study.out, arm, seed)
    found = [stage for stage in plan(of.out, (seed,), study.backend) if stage.name in (*_TRAINED, of.rl(seed).name)]
    return [_named(stage, study, arm, seed) for stage in found]


def _named(stage: Stage, study: Study, arm: str, seed: int) -> Stage:
    what = "rl" if stage.name not in _TRAINED else stage.name
    return replace(
        stage,
        name=f"{arm}_seed{seed}_{what}",
        title=f"{arm} data, seed {seed}: {stage.title}",
        command=(*stage.command, f"seed={seed}") if what == "sft" else stage.command,
        alike=tuple(f"{other}_seed{number}_{what}" for number in study.seeds for other in ARMS),
    )


def _table(study: Study) -> Stage:
    seeds = ",".join(map(str, study.seeds))
    return Stage(
        name="table",
        title="table",
        command=_python("table", "--out", study.out, "--strata", study.strata, "--seeds", seeds),
        outputs=(study.out / "data_path.md", study.out / "data_path.json"),
        timeout_s=1_200,
        expected_s=60,
        always=True,
    )


def _python(module: str, *arguments: object) -> tuple[str, ...]:
    return (sys.executable, "-m", f"recipes.data_path.{module}", *map(str, arguments))


def _taken(demo: Layout) -> tuple[Path, ...]:
    return tuple(demo.data / name for name in OF_THE_DEMO)


def _check_demo(demo: Layout) -> None:
    """Raises UserError: something that is taken over is not there."""
    for needed in (*_taken(demo), demo.tiny / "config.json", demo.sft_model / "config.json"):
        if not needed.exists():
            raise UserError(f"--demo {demo.out}: has no {needed}; give the folder of a finished demo")
    run_of_rl(demo)


def _path(options: argparse.Namespace, console: Console) -> int:
    out: Path = options.out.resolve()
    demo, seeds = Layout(options.demo.resolve()), parse_seeds(options.seeds)
    _check_demo(demo)
    if options.questions < LEAST_QUESTIONS:
        raise UserError(f"--questions {options.questions}: must be {LEAST_QUESTIONS} or more")
    for name in ("samples", "tries"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name} {getattr(options, name)}: must be 1 or more")
    with explained_disk_errors(out):
        make_folder(out)
        with demo_lock(out):
            check_free_space(out, MIN_FREE_BYTES)
            backend = choose_backend(options.sandbox)
            prepare(out, backend, 0.0, console)
            study = Study(out, demo, seeds, backend.name, options.questions, options.samples, options.tries)
            try:
                Runner(out, console).run(stages(study))
            finally:
                remove_orphan_containers(backend)
    console.line()
    console.line((out / "data_path.md").read_text(encoding="utf-8"))
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Command-line entry; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m recipes.data_path.run", description=__doc__)
    parser.add_argument("--demo", type=Path, required=True, help="folder of a finished demo")
    parser.add_argument("--seeds", default="0,1,2", help="seeds of SFT and RL (default: %(default)s)")
    parser.add_argument("--questions", type=int, default=QUESTIONS, help="of the pool (default: %(default)s)")
    parser.add_argument("--samples", type=int, default=SAMPLES, help="of a question by a model (default: %(default)s)")
    parser.add_argument("--tries", type=int, default=TRIES, help="trajectories for a question (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT)
    parser.add_argument("--sandbox", choices=BACKENDS, default="auto")
    options = parser.parse_args(arguments)
    console = Console()
    return guarded(lambda: _path(options, console), console)


if __name__ == "__main__":
    sys.exit(main())
