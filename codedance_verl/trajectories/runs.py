"""Finds runs below a folder, and the files in which each keeps its trajectories."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from codedance_verl.errors import UserError

MAX_DEPTH = 3
"""How deep below the folder that was named runs are looked for."""

STEP_FILE = re.compile(r"step_(\d+)\..+\.jsonl")
"""Name of a file of our own trajectories; the first group is the training step."""

_OF_VERL = re.compile(r"(\d+)\.jsonl")


@dataclass(frozen=True)
class LogFile:
    """A file of trajectories; `split` is `train` or `val`."""

    path: Path
    split: str
    step: int


@dataclass(frozen=True)
class Run:
    """A run by its name (its path below the folder that was named), and the folder of its trajectories."""

    name: str
    folder: Path

    def files(self) -> list[LogFile]:
        """Files there are now, the newest step first."""
        found = [file for split in ("train", "val") for file in log_files(_listed(self.folder / split), split)]
        # verl writes one folder for each split and no split into the lines: only the name of the folder says it.
        found += log_files(_listed(self.folder), "val" if "val" in self.folder.name else "train", _OF_VERL)
        return sorted(found, key=lambda file: (-file.step, file.path.name))


def log_files(paths: Iterable[Path], split: str, name: re.Pattern[str] = STEP_FILE) -> list[LogFile]:
    """Those of a folder's files that hold trajectories; the first group of `name` is their step."""
    matches = ((path, name.fullmatch(path.name)) for path in paths)
    return [LogFile(path, split, int(match.group(1))) for path, match in matches if match]


def find_runs(root: Path) -> list[Run]:
    """The run at `root`, or those below it.

    Raises:
        UserError: there is no such folder, or no trajectory in or below it.
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; give a run's folder, or one of runs")
    root = root.resolve()
    found = _below(root, root, MAX_DEPTH)
    if not found:
        raise UserError(
            f"{root}: holds no trajectories; give the run_dir of a run with environment.save_trajectories=true, a "
            "folder of such runs, or a trainer.rollout_data_dir"
        )
    return found


def _below(folder: Path, root: Path, depth: int) -> list[Run]:
    for candidate in (folder / "trajectories", folder):
        if _holds(candidate):
            name = folder.name if folder == root else str(folder.relative_to(root))
            return [Run(name, candidate)]
    if depth == 0:
        return []
    inner = sorted(path for path in _listed(folder) if path.is_dir() and not path.name.startswith("."))
    return [run for path in inner for run in _below(path, root, depth - 1)]


def _holds(folder: Path) -> bool:
    if any((folder / split).is_dir() for split in ("train", "val")) and (
        folder.name == "trajectories" or (folder / "images").is_dir()
    ):
        return True
    return any(_OF_VERL.fullmatch(path.name) and _begins_as_verls(path) for path in _listed(folder))


def _begins_as_verls(path: Path) -> bool:
    """A folder of metrics has files of the same name."""
    try:
        with path.open("rb") as stream:
            begin = stream.read(1 << 20)  # `output` comes after a prompt, which may be long
    except OSError:
        return False
    return begin.startswith(b'{"input"') and b'"output"' in begin


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []
