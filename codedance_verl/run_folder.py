"""The folder of a run, laid out alike by training, SFT and evaluation (see docs/architecture.md)."""

from __future__ import annotations

import shutil
from pathlib import Path

MODEL = "model"
"""Name of the folder of the trained model, below that of the run."""


def new_metrics_file(run_dir: Path) -> Path:
    """A metrics file of its own for each start of a run: verl's file logger truncates what it finds."""
    folder = run_dir / "metrics"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{len(list(folder.glob('*.jsonl'))):04d}.jsonl"


def last_step(run_dir: Path) -> int:
    """Step of the last complete checkpoint, 0 where there is none."""
    tracker = run_dir / "checkpoints" / "latest_checkpointed_iteration.txt"
    return int(tracker.read_text()) if tracker.is_file() else 0


def publish_model(run_dir: Path, part: str = "") -> Path:
    """Copy the Hugging Face folder of the last checkpoint to `<run_dir>/model`, which never holds half of one.

    `part` is the worker group's folder inside a checkpoint, "actor" after RL.
    """
    source = run_dir / "checkpoints" / f"global_step_{last_step(run_dir)}" / part / "huggingface"
    target, partial = run_dir / MODEL, run_dir / f"{MODEL}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(source, partial)
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
    return target
