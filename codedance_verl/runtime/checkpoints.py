"""Checkpoints of a run: sealed when they are whole, pruned, and found again at a resume.

verl 0.9.1 removes the previous checkpoint while the new one is still being written, truncates the file that names the
last one before it writes it, and forgets at a resume what there is to remove. So checkpoints are removed here, after
the new one was sealed: `complete.json` appears in its folder once all else is on the disk. A run resumes from the last
sealed checkpoint, wherever it was killed.
"""

from __future__ import annotations

import itertools
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from codedance_verl.runtime.atomic import flush, write_atomically

SEAL = "complete.json"
TRACKER = "latest_checkpointed_iteration.txt"
"""verl's file with the step that it resumes from."""

_FOLDER = re.compile(r"global_step_(\d+)")


def folder_of(checkpoints: Path, step: int) -> Path:
    """Returns the folder that verl saves a step in."""
    return checkpoints / f"global_step_{step}"


def step_of(folder: Path) -> int:
    """Returns the step of a checkpoint's folder, 0 for a folder of another name."""
    match = _FOLDER.fullmatch(folder.name)
    return int(match.group(1)) if match else 0


def tracked_step(checkpoints: Path) -> int:
    """Returns the step that verl's tracker names, 0 where there is none. verl empties the file before it writes it."""
    try:
        return int((checkpoints / TRACKER).read_text())
    except (OSError, ValueError):
        return 0


def seal(folder: Path) -> None:
    """Declares a checkpoint whole, once everything in it has reached the disk."""
    sizes = {}
    for path in _files(folder):
        flush(path)  # before the seal: after a power cut a seal must not stand beside files that were never written
        sizes[str(path.relative_to(folder))] = path.stat().st_size
    write_atomically(folder / SEAL, json.dumps({"files": sizes}, indent=1))


def unseal(folder: Path) -> None:
    """Takes the seal away, before a checkpoint is written again."""
    (folder / SEAL).unlink(missing_ok=True)


def is_whole(folder: Path) -> bool:
    """True when it is sealed, and every file is as long as it was then."""
    try:
        sizes = json.loads((folder / SEAL).read_text())["files"]
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError):
        return False


def any_sealed(checkpoints: Path) -> bool:
    """True when a checkpoint was ever sealed here. Then one without a seal is none; other trainers seal none."""
    return any(path.is_file() for path in checkpoints.glob(f"global_step_*/{SEAL}"))


def whole_steps(checkpoints: Path) -> list[int]:
    """Returns the steps of the whole checkpoints, ascending."""
    return [step for step in _steps(checkpoints) if is_whole(folder_of(checkpoints, step))]


def can_be_resumed(folder: Path) -> bool:
    """True for a whole checkpoint, and for one of a trainer without seals that its tracker says was finished."""
    if is_whole(folder):
        return True
    finished = tracked_step(folder.parent)
    return folder.is_dir() and step_of(folder) <= finished and not any_sealed(folder.parent)


def repair_tracker(checkpoints: Path) -> int:
    """Makes verl's tracker name the last whole checkpoint, and returns its step.

    Where no checkpoint was ever sealed (another trainer has written them) the tracker is left as it is. One that cannot
    be read, or whose checkpoint is gone, is removed, and the run starts from the beginning: 0.
    """
    tracker, tracked = checkpoints / TRACKER, tracked_step(checkpoints)
    steps = whole_steps(checkpoints)
    if steps:
        if tracked != steps[-1]:
            write_atomically(tracker, str(steps[-1]))
        return steps[-1]
    if not folder_of(checkpoints, tracked).is_dir():
        tracker.unlink(missing_ok=True)
        return 0
    return tracked


def set_aside(checkpoints: Path, step: int) -> Path | None:
    """Moves the whole checkpoints of later steps than `step` out of the way; returns the folder they are in now.

    A run that began again, at the beginning or at an earlier checkpoint, leaves those of its former course behind:
    `prune` and the next start would take them for the newest ones.
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
    """Removes all but the last `keep` whole checkpoints, and what a kill has left of earlier ones; None keeps all."""
    if not keep:
        return
    kept = whole_steps(checkpoints)[-keep:]
    for step in _steps(checkpoints):
        # one without a seal after the last whole one may be in progress
        if kept and step < kept[-1] and step not in kept:
            unseal(folder_of(checkpoints, step))  # first: a kill during the removal must not leave a sealed half
            shutil.rmtree(folder_of(checkpoints, step), ignore_errors=True)


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != SEAL)


def _steps(checkpoints: Path) -> list[int]:
    if not checkpoints.is_dir():
        return []
    found = (_FOLDER.fullmatch(path.name) for path in checkpoints.iterdir() if path.is_dir())
    return sorted(int(match.group(1)) for match in found if match)
