"""Folder of a run, laid out alike by training, SFT and evaluation (see docs/architecture.md)."""

from __future__ import annotations

import shutil
from pathlib import Path

from codedance_verl.errors import UserError
from codedance_verl.runtime.atomic import replacing
from codedance_verl.runtime.checkpoints import folder_of, tracked_step

MODEL = "model"
"""Name of the folder of the trained model, below that of the run."""


def new_metrics_file(run_dir: Path) -> Path:
    """Returns a path of its own for each start of a run: verl's file logger truncates what it finds."""
    folder = run_dir / "metrics"
    folder.mkdir(parents=True, exist_ok=True)
    taken = [int(path.stem) for path in folder.glob("*.jsonl") if path.stem.isdecimal()]
    return folder / f"{max(taken, default=-1) + 1:04d}.jsonl"


def last_step(run_dir: Path) -> int:
    """Returns the step of the last checkpoint, 0 where there is none."""
    return tracked_step(run_dir / "checkpoints")


def publish_model(run_dir: Path, part: str = "") -> Path:
    """Copies the Hugging Face folder of the last checkpoint to `<run_dir>/model`, which never holds half of one.

    `part` is the worker group's folder inside a checkpoint, "actor" after RL.

    Raises:
        UserError: it cannot be copied, for want of space, say; the checkpoint stays as it is.
    """
    source = folder_of(run_dir / "checkpoints", last_step(run_dir)) / part / "huggingface"
    target = run_dir / MODEL
    try:
        with replacing(target) as partial:
            shutil.copytree(source, partial)
    except OSError as error:
        raise UserError(
            f"{target}: cannot be made of {source} ({_cause(error)}); free some space and start the run again"
        ) from error
    return target


def _cause(error: OSError) -> str:
    """Returns the cause in a line, also of `shutil.Error`, which lists every file that could not be copied."""
    return str(error.args[0][0][-1]) if isinstance(error, shutil.Error) else error.strerror or str(error)
