"""Which checkpoints of a run are whole, which are kept, and which one a run resumes from.

verl 0.9.1 removes the previous checkpoint while the new one is still being written, truncates the file that names the
last one before it writes it, and forgets at a resume what there is to remove. So the removing is done here, after a new
checkpoint was sealed: `complete.json` appears in its folder at once, when all else is on the disk. A run resumes from
the last sealed checkpoint, wherever it was killed.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

SEAL = "complete.json"
TRACKER = "latest_checkpointed_iteration.txt"
"""Holds the step that verl resumes from."""

_FOLDER = re.compile(r"global_step_(\d+)")


def folder_of(checkpoints: Path, step: int) -> Path:
    """Where verl puts the checkpoint of a step."""
    return checkpoints / f"global_step_{step}"


def step_of(folder: Path) -> int:
    """The step of a checkpoint's folder, 0 where its name tells none."""
    match = _FOLDER.fullmatch(folder.name)
    return int(match.group(1)) if match else 0


def seal(folder: Path) -> None:
    """Declare a checkpoint whole, once everything in it has reached the disk."""
    sizes = {}
    for path in _files(folder):
        _flush(path)
        sizes[str(path.relative_to(folder))] = path.stat().st_size
    write_at_once(folder / SEAL, json.dumps({"files": sizes}, indent=1))


def unseal(folder: Path) -> None:
    """Take back that a checkpoint is whole, before it is written anew."""
    (folder / SEAL).unlink(missing_ok=True)


def is_whole(folder: Path) -> bool:
    """Sealed, and every file as long as it was then."""
    try:
        sizes = json.loads((folder / SEAL).read_text())["files"]
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError):
        return False


def any_sealed(checkpoints: Path) -> bool:
    """Whether a checkpoint was ever sealed here; then one without a seal is none. Other trainers seal none."""
    return any(path.is_file() for path in checkpoints.glob(f"global_step_*/{SEAL}"))


def whole_steps(checkpoints: Path) -> list[int]:
    """Steps of the whole checkpoints, ascending."""
    return [step for step in _steps(checkpoints) if is_whole(folder_of(checkpoints, step))]


def can_be_resumed(folder: Path) -> bool:
    """Whole; or written to its end, as the tracker beside it says, by another trainer, which seals none."""
    if is_whole(folder):
        return True
    finished = _named(folder.parent / TRACKER) or 0
    return folder.is_dir() and step_of(folder) <= finished and not any_sealed(folder.parent)


def settle(checkpoints: Path) -> int:
    """Have verl's tracker name the last whole checkpoint, and return its step.

    Where no checkpoint was ever sealed (another trainer has written them) the tracker is left as it is; one that cannot
    be read, or whose checkpoint is gone, is removed, and the run starts anew: 0.
    """
    tracker = checkpoints / TRACKER
    named = _named(tracker)
    steps = whole_steps(checkpoints)
    if steps:
        if named != steps[-1]:
            write_at_once(tracker, str(steps[-1]))
        return steps[-1]
    if named is None or not folder_of(checkpoints, named).is_dir():
        tracker.unlink(missing_ok=True)
        return 0
    return named


def set_aside(checkpoints: Path, step: int) -> Path | None:
    """Move the whole checkpoints of later steps than `step` out of the way; returns the folder they are in now.

    A run that began anew, or from an earlier checkpoint, leaves those of its former course behind: they would be taken
    for the newest ones, by `prune` and at the next start.
    """
    later = [found for found in whole_steps(checkpoints) if found > step]
    if not later:
        return None
    aside = next(
        path for path in (checkpoints / f"superseded_{number}" for number in itertools.count()) if not path.exists()
    )
    aside.mkdir()
    for found in later:
        folder_of(checkpoints, found).rename(folder_of(aside, found))
    return aside


def prune(checkpoints: Path, keep: int | None) -> None:
    """Remove all but the last `keep` whole checkpoints, and what a kill has left of others before; None keeps all."""
    if not keep:
        return
    kept = whole_steps(checkpoints)[-keep:]
    for step in _steps(checkpoints):
        if kept and step < kept[-1] and step not in kept:
            unseal(folder_of(checkpoints, step))
            shutil.rmtree(folder_of(checkpoints, step), ignore_errors=True)


def write_at_once(path: Path, text: str) -> None:
    """Write a file that is never seen half written, not even after a power cut."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text)
    _flush(partial)
    partial.rename(path)
    _flush(path.parent)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _named(tracker: Path) -> int | None:
    try:
        return int(tracker.read_text())
    except (OSError, ValueError):
        return None


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != SEAL)


def _steps(checkpoints: Path) -> list[int]:
    if not checkpoints.is_dir():
        return []
    found = (_FOLDER.fullmatch(path.name) for path in checkpoints.iterdir() if path.is_dir())
    return sorted(int(match.group(1)) for match in found if match)
