"""Keeps a folder of trajectories within its share of the disk, whoever else writes to it."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from codedance_verl.trajectories.runs import STEP_FILE

logger = logging.getLogger(__name__)

FREE_TO = 0.9
"""Share of the limit that is left in use once something had to go, so that not every rollout deletes a file."""

YOUNG_SECONDS = 3600.0
"""A picture used within this time stays: the line that names it may still be on its way."""

_NAMED = re.compile(rb"images/([0-9a-f]{64})\.png")
_BLOCK = 1 << 20
_OVERLAP = 128  # longer than what is looked for


@dataclass(frozen=True)
class Usage:
    """Bytes of the folder, and what was deleted to come to that; `settled` is false where another process is at it."""

    used: int
    settled: bool = True
    deleted_steps: tuple[int, ...] = ()
    deleted_images: int = 0


def enforce(folder: Path, max_bytes: int, *, young_s: float = YOUNG_SECONDS) -> Usage:
    """Delete the oldest training steps, then pictures that no line names, until `FREE_TO` of the limit is in use.

    The newest training step stays. Does nothing while another process is at it.

    Raises:
        OSError: the folder cannot be read.
    """
    used = _used(folder)
    if used <= max_bytes:
        return Usage(used)
    with _alone(folder) as alone:
        if not alone:
            return Usage(used, settled=False)
        target, deleted, images = int(max_bytes * FREE_TO), list[int](), 0
        for step in _train_steps(folder)[:-1]:
            if used <= target:
                break
            _delete_step(folder, step)
            deleted.append(step)
            images += _sweep(folder, young_s)
            used = _used(folder)
    if deleted:
        logger.warning(
            "trajectories.max_gib: deleted those of training steps %d to %d and %d pictures; %.2f GiB are in use",
            deleted[0],
            deleted[-1],
            images,
            used / 2**30,
        )
    return Usage(used, deleted_steps=tuple(deleted), deleted_images=images)


def _used(folder: Path) -> int:
    return sum(size for _, size, _ in _files(folder))


def _files(folder: Path) -> Iterator[tuple[Path, int, float]]:
    """Path, bytes and time of last use of everything below."""
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            yield path, status.st_size, status.st_mtime


def _train_steps(folder: Path) -> list[int]:
    return sorted({int(found.group(1)) for path in (folder / "train").glob("*.jsonl") if (found := _name(path))})


def _name(path: Path) -> re.Match[str] | None:
    return STEP_FILE.fullmatch(path.name)


def _delete_step(folder: Path, step: int) -> None:
    for path in (folder / "train").glob("*.jsonl"):
        if (found := _name(path)) and int(found.group(1)) == step:
            path.unlink(missing_ok=True)


def _sweep(folder: Path, young_s: float) -> int:
    named: set[str] = set()
    for path in folder.glob("*/*.jsonl"):
        named |= _names_in(path)
    count, now = 0, time.time()
    for path, _, used_at in list(_files(folder / "images")):
        if path.stem not in named and now - used_at > young_s:
            path.unlink(missing_ok=True)
            count += 1
    return count


def _names_in(path: Path) -> set[str]:
    named: set[str] = set()
    rest = b""
    try:
        with path.open("rb") as stream:
            while block := stream.read(_BLOCK):
                named |= {found.decode() for found in _NAMED.findall(rest + block)}
                rest = block[-_OVERLAP:]
    except FileNotFoundError:
        pass
    return named


@contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    with (folder / ".disk.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True
