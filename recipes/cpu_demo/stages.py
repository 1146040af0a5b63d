"""Stages of the demo, in order: every command line of it is in this file."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import OmegaConf

from codedance_verl.errors import UserError
from recipes.cpu_demo.demo_models import DEFAULT_MODEL, DEMO_MODELS
from recipes.cpu_demo.demo_sizes import DEFAULT_SIZE
from recipes.cpu_demo.progress import ProgressSource, evaluation_progress, in_turn, training_progress

REPOSITORY = Path(__file__).resolve().parents[2]
RECIPE = REPOSITORY / "conf" / "recipe" / "cpu_demo.yaml"
SFT_CONFIG = REPOSITORY / "conf" / "sft.yaml"


@dataclass(frozen=True)
class Stage:
    """One step of the demo, a command in a process group of its own.

    Attributes:
        name: key of the stage in markers, logs and the report.
        title: what the progress line calls it.
        command: program and arguments.
        inputs: files and folders whose contents, with the command, decide whether a finished stage still counts.
        outputs: must exist when the command has succeeded.
        folder: what the stage writes; emptied before a new try unless the stage can resume. None: nothing to empty.
        timeout_s: wall seconds after which one try is ended.
        expected_s: rough duration on 2 cores, for the estimate of the remainder.
        alike: names of stages that take about as long; the median of those that are finished replaces `expected_s`.
        resumable: an interrupted try is continued from what it left.
        always: runs even if it finished before, to see that all is still there; its longest run counts.
        progress: says how far it is, from the files it writes.
    """

    name: str
    title: str
    command: tuple[str, ...]
    inputs: tuple[Path, ...] = ()
    outputs: tuple[Path, ...] = ()
    folder: Path | None = None
    timeout_s: float = 600.0
    expected_s: float = 60.0
    alike: tuple[str, ...] = ()
    resumable: bool = False
    always: bool = False
    progress: ProgressSource | None = None


@dataclass(frozen=True)
class Layout:
    """Paths below the demo's output folder."""

    out: Path

    @property
    def data(self) -> Path:
        return self.out / "data"

    @property
    def tiny(self) -> Path:
        return self.out / "tiny"

    @property
    def sft(self) -> Path:
        return self.out / "sft"

    @property
    def sft_model(self) -> Path:
        return self.sft / "model"

    @property
    def eval_sft(self) -> Path:
        return self.out / "eval_sft"

    def rl(self, seed: int) -> Path:
        return self.out / f"rl_seed{seed}"

    def rl_model(self, seed: int) -> Path:
        return self.rl(seed) / "model"


def rl_steps() -> int:
    """RL steps of the recipe."""
    return int(OmegaConf.load(RECIPE).trainer.total_training_steps)


def sft_steps() -> int:
    return int(OmegaConf.load(SFT_CONFIG).trainer.total_training_steps)


def parse_seeds(text: str) -> tuple[int, ...]:
    """Seeds from "0,1". Raises UserError unless they are different whole numbers from 0 to 2^31 - 1."""
    parts = [part.strip() for part in text.split(",")]
    seeds = tuple(int(part) for part in parts if part.isascii() and part.isdigit() and int(part) < 2**31)
    if len(seeds) != len(parts) or len(set(seeds)) != len(seeds):
        raise UserError(f"--seeds {text}: must be different whole numbers separated by commas, such as 0,1")
    return seeds


def plan(out: Path, seeds: Sequence[int], backend: str, model: str = DEFAULT_MODEL) -> list[Stage]:
    """The stages in order.

    Args:
        backend: where model code runs, "docker" or "process".
        model: one of `DEMO_MODELS`.
    """
    layout = Layout(out)
    stages = [] if backend == "process" else [_image()]
    stages += [_data(layout), _tiny(layout, model), _sft(layout)]
    overrides = DEMO_MODELS[model].overrides
    stages.append(_evaluate_sft(layout, backend, overrides))
    stages += [rl_stage(layout, layout.rl(seed), seed, backend, overrides) for seed in seeds]
    return [*stages, _report(layout, seeds)]


def _python(module: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", module, *arguments)


def _image() -> Stage:
    return Stage(
        name="image",
        title="sandbox image",
        command=_python("codedance_verl.cli", "sandbox", "build"),
        timeout_s=1_200,
        expected_s=90,
        always=True,  # it knows itself whether the image is up to date, and that takes a second
    )


def _data(layout: Layout) -> Stage:
    files = ("sft.parquet", "rl_train.parquet", "rl_val.parquet", "test.parquet")
    return Stage(
        name="data",
        title="questions and demonstrations",
        command=_python("codedance_verl.cli", "data", "make", "--out", str(layout.data), "--seed", "0"),
        outputs=tuple(layout.data / file for file in files),
        folder=layout.data,
        expected_s=40,
    )


def _tiny(layout: Layout, model: str) -> Stage:
    demonstrations = layout.data / "sft.parquet"
    # the default is not named: a finished stage still counts only while its command stays the same
    chosen = () if model == DEFAULT_MODEL else ("--model", model)
    return Stage(
        name="model",
        title=DEMO_MODELS[model].title,
        command=_python(
            "recipes.cpu_demo.tiny_model", "--data", str(demonstrations), "--out", str(layout.tiny), *chosen
        ),
        inputs=(demonstrations,),
        outputs=(layout.tiny / "config.json",),
        folder=layout.tiny,
        expected_s=20,
    )


def _sft(layout: Layout) -> Stage:
    demonstrations = layout.data / "sft.parquet"
    return Stage(
        name="sft",
        title="supervised fine-tuning",
        command=_python(
            "codedance_verl.sft",
            f"run_dir={layout.sft}",
            f"data.train_files={demonstrations}",
            f"model.path={layout.tiny}",
            f"data.max_image_pixels={DEFAULT_SIZE**2}",
        ),
        inputs=(SFT_CONFIG, demonstrations, layout.tiny),
        outputs=(layout.sft_model / "config.json",),
        folder=layout.sft,
        timeout_s=1_200,
        expected_s=200,
        resumable=True,
        progress=training_progress(layout.sft, sft_steps()),
    )


def _evaluate_sft(layout: Layout, backend: str, overrides: Sequence[str]) -> Stage:
    test = layout.data / "test.parquet"
    return Stage(
        name="eval_sft",
        title="evaluation of SFT",
        command=_python(
            "codedance_verl.evaluate",
            "recipe=cpu_demo",
            f"run_dir={layout.eval_sft}",
            f"data.val_files={test}",
            f"actor_rollout_ref.model.path={layout.sft_model}",
            f"sandbox.backend={backend}",
            *overrides,
        ),
        inputs=(RECIPE, test, layout.sft_model),
        outputs=(layout.eval_sft / "trajectories" / "val",),
        folder=layout.eval_sft,
        timeout_s=1_500,
        expected_s=250,
        progress=evaluation_progress(layout.eval_sft, test),
    )


def rl_stage(
    layout: Layout,
    run: Path,
    seed: int,
    backend: str,
    overrides: Sequence[str] = (),
    test: Path | None = None,
    steps: int | None = None,
) -> Stage:
    """Training, and in the same run, as a start takes minutes of a small machine, the evaluation of its model.

    The stage has the name of its folder `run`; `overrides` are further keys of the configuration; `test` and `steps`
    replace the demo's test file and the recipe's number of steps.
    """
    train, test = layout.data / "rl_train.parquet", test or layout.data / "test.parquet"
    steps = steps or rl_steps()
    return Stage(
        name=run.name,
        title=f"reinforcement learning and evaluation, seed {seed}",
        command=_python(
            "codedance_verl.train",
            "recipe=cpu_demo",
            f"run_dir={run}",
            f"seed={seed}",
            f"data.train_files={train}",
            f"data.val_files={test}",
            f"trainer.total_training_steps={steps}",
            f"trainer.test_freq={steps}",
            f"actor_rollout_ref.model.path={layout.sft_model}",
            f"sandbox.backend={backend}",
            *overrides,
        ),
        inputs=(RECIPE, train, test, layout.sft_model),
        # the checkpoint of the last step: a run that resumed and trained nothing must not pass for a finished one
        outputs=(
            run / "model" / "config.json",
            run / "checkpoints" / f"global_step_{steps}",
            run / "trajectories" / "val",
        ),
        folder=run,
        timeout_s=2_400,
        expected_s=680,
        resumable=True,
        progress=in_turn(evaluation_progress(run, test), training_progress(run, steps)),
    )


def _report(layout: Layout, seeds: Sequence[int]) -> Stage:
    seed_list = ",".join(map(str, seeds))
    return Stage(
        name="report",
        title="report",
        command=_python("recipes.cpu_demo.report", "--out", str(layout.out), "--seeds", seed_list),
        outputs=(layout.out / "report.json", layout.out / "report.html"),
        timeout_s=300,
        expected_s=15,
        always=True,
    )
