"""Removal of what a session of its own uid left in the folder that all sessions share.

It is found by its owner and removed under the owner's uid, so that links lead nowhere else. Little is removed at once,
much by a child, which holds nobody up.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Collection
from itertools import islice
from pathlib import Path

from .process_kill import acting_as

_MOST_ENTRIES = 1_024
"""Entries of the shared folder among which is looked for leavings without a child."""

_MOST_FILES, _MOST_BYTES = 32, 16 * 1024 * 1024
"""Files of one folder, and their size together, that are removed without a child: milliseconds."""


def found(uids: Collection[int], root: str, most: int | None = _MOST_ENTRIES) -> dict[int, list[str]] | None:
    """Returns the paths in `root` by owner, those of `uids`; None where there are more than `most` entries to see."""
    paths: dict[int, list[str]] = {uid: [] for uid in uids}
    with contextlib.suppress(OSError), os.scandir(root) as entries:
        for entry in islice(entries, most):
            with contextlib.suppress(OSError):
                owner = entry.stat(follow_symlinks=False).st_uid
                if owner in paths:
                    paths[owner].append(entry.path)
        if most is not None and next(entries, None) is not None:
            return None
    return paths


def remove_little(uid: int, paths: list[str]) -> bool:
    """Removes files, and folders with a few small files; false where there is more, or where it is refused."""
    with acting_as(uid):
        try:
            for path in paths:
                if stat.S_ISDIR(os.lstat(path).st_mode):
                    if not _remove_small_folder(path):
                        return False
                else:
                    Path(path).unlink()
        except OSError:
            return False
    return True


def remove_all(paths: list[str]) -> None:
    """Removes whatever there is, as far as the caller may, who is the owner."""
    for path in paths:
        with contextlib.suppress(OSError):
            if stat.S_ISDIR(os.lstat(path).st_mode):
                shutil.rmtree(path, ignore_errors=True)
            else:
                Path(path).unlink()


def _remove_small_folder(path: str) -> bool:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        with os.scandir(folder) as entries:
            files = list(islice(entries, _MOST_FILES + 1))
        held = sum(entry.stat(follow_symlinks=False).st_blocks * 512 for entry in files)
        if len(files) > _MOST_FILES or held > _MOST_BYTES:
            return False
        for entry in files:
            os.unlink(entry.name, dir_fd=folder)
    finally:
        os.close(folder)
    os.rmdir(path)  # noqa: PTH106  a Path costs as much as the rest
    return True
