"""Retention: keeps a folder of trajectories within its share of the disk, also while other processes write to it."""

from __future__ import annotations

import logging
import math
import os
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from codedance_verl.runtime.locks import Locked, exclusive_lock
from codedance_verl.trajectories.runs import log_files

logger = logging.getLogger(__name__)

FREE_TO = 0.9
"""Share of the limit that is left in use once something had to go, so that not every rollout deletes a file."""

YOUNG_SECONDS = 60.0
"""An image used within this time stays: the line that names it may not be written yet. It is written milliseconds
after; the rest is for clocks that differ."""

_UNNAMED = -1
"""In place of a step, for images that no line names."""

_NAMED = re.compile(rb"images/([0-9a-f]{64})\.png")
_BLOCK = 1 << 20
_OVERLAP = 128  # longer than what is looked for


@dataclass(frozen=True)
class Usage:
    """Bytes of the folder, and what was deleted to come to that.

    `settled` is false where another process is at it, or where images are still too young to go.
    """

    used: int
    settled: bool = True
    deleted_steps: tuple[int, ...] = ()
    deleted_images: int = 0


def enforce(folder: Path, max_bytes: int, *, young_s: float = YOUNG_SECONDS) -> Usage:
    """Delete the oldest training steps, then images that no line names, until `FREE_TO` of the limit is in use.

    The newest training step stays. Images that are too young to go are left to a later call, and no further step is
    deleted in their place. Does nothing while another process is at it.

    Raises:
        OSError: the folder cannot be read.
    """
    used = _used(folder)
    if used <= max_bytes:
        return Usage(used)
    try:
        with exclusive_lock(folder / ".disk.lock", f"{folder}: locked by another process") as alone:
            return _freed(folder, used, max_bytes, young_s) if alone else Usage(used, settled=False)
    except Locked:
        return Usage(used, settled=False)


def _freed(folder: Path, used: int, max_bytes: int, young_s: float) -> Usage:
    # Taken before lines are read: an image that is named during the reading counts as young, and stays.
    young_since = time.time() - young_s
    last_named = _last_named(folder)
    deleted = _steps_to_go(folder, last_named, used - int(max_bytes * FREE_TO))
    for path, step in _train_files(folder):
        if step in deleted:
            path.unlink(missing_ok=True)
    images, waiting = _sweep(folder, last_named, deleted[-1] if deleted else _UNNAMED, young_since)
    used = _used(folder)
    if deleted:
        logger.warning(
            "trajectories.max_gib: deleted those of training steps %d to %d and %d images; %.2f GiB are in use",
            deleted[0],
            deleted[-1],
            images,
            used / 2**30,
        )
    # Not settled only where young images alone keep the folder over its limit: a later call will free them.
    settled = used <= max_bytes or used - waiting > max_bytes
    return Usage(used, settled, tuple(deleted), images)


def _used(folder: Path) -> int:
    return sum(size for _, size, _ in _files(folder))


def _files(folder: Path) -> Iterator[tuple[Path, int, float]]:
    """Path, bytes and time of last use of everything below."""
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            try:
                status = path.stat()
            except FileNotFoundError:  # another process deleted it
                continue
            yield path, status.st_size, status.st_mtime


def _train_files(folder: Path) -> list[tuple[Path, int]]:
    """Files of training and the step of each."""
    return [(file.path, file.step) for file in log_files((folder / "train").glob("*.jsonl"), "train")]


def _last_named(folder: Path) -> dict[str, float]:
    """Images by hash, each with the last step of training that names it; infinite for those of other files."""
    last: dict[str, float] = {}
    # Lines of validation stay, so their images must: infinity is after every step.
    steps: dict[Path, float] = dict(_train_files(folder))
    for path in folder.glob("*/*.jsonl"):
        step = steps.get(path, math.inf)
        last |= {name: max(last.get(name, step), step) for name in _names_in(path)}
    return last


def _steps_to_go(folder: Path, last_named: Mapping[str, float], excess: int) -> list[int]:
    """The oldest steps whose lines, with the images that no later step names, come to `excess` bytes."""
    frees = Counter[float]()
    for path, step in _train_files(folder):
        frees[step] += path.stat().st_size
    steps = sorted(int(step) for step in frees)
    for path, size, _ in _files(folder / "images"):
        frees[last_named.get(path.stem, _UNNAMED)] += size
    # Images that no line names go in any case, so they count as freed from the start.
    chosen, freed = list[int](), frees[_UNNAMED]
    for step in steps[:-1]:  # the newest step is still being written
        if freed >= excess:
            break
        chosen.append(step)
        freed += frees[step]
    return chosen


def _sweep(folder: Path, last_named: Mapping[str, float], up_to: int, young_since: float) -> tuple[int, int]:
    """Delete images that no step after `up_to` names; how many, and the bytes of those too young to go."""
    count = waiting = 0
    for path, size, used_at in list(_files(folder / "images")):
        if last_named.get(path.stem, _UNNAMED) > up_to:
            continue
        if used_at < young_since:
            path.unlink(missing_ok=True)
            count += 1
        else:
            waiting += size
    return count, waiting


def _names_in(path: Path) -> set[str]:
    named: set[str] = set()
    rest = b""
    with suppress(FileNotFoundError), path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            # A name may lie across two blocks: each is searched with the end of the one before.
            named |= {found.decode() for found in _NAMED.findall(rest + block)}
            rest = block[-_OVERLAP:]
    return named
