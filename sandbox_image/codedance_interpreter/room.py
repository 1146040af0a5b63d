"""Lack of room: failures that are the container's and not the fault of image or code."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
from os import O_RDONLY, close, read
from os import open as open_file
from pathlib import Path

FILES, MEMORY, SESSION_MEMORY, PROCESSES = "files", "memory", "session_memory", "processes"
_OFFERED = re.compile(r"\.?input_image(?:_\d+)?\.(?:png|jpg)")
_BLOCK_BYTES = 512
"""Unit of `st_blocks` (stat(2)), whatever the file system's block size."""

_SHORT_SHARE = 0.8
"""Share of a container's memory in use from which it counts as short."""

_BY_ERRNO = {errno.ENOSPC: FILES, errno.EDQUOT: FILES, errno.ENOMEM: MEMORY, errno.EAGAIN: PROCESSES}


class NoRoom(Exception):
    """Lack of room for an operation; `lacks` is one of the four words above."""

    def __init__(self, lacks: str) -> None:
        super().__init__(lacks)
        self.lacks = lacks


def is_memory_short() -> bool:
    """Returns true where the container's memory is nearly used up; false where nothing says how much it may use."""
    if _MEMORY is None:
        return False
    use, limit = _MEMORY
    return _number_in(use) > _SHORT_SHARE * limit


def _memory() -> tuple[str, int] | None:
    """Returns the file with the use of the container's memory, and the limit, in bytes, by control groups 1 or 2."""
    for folder, use, limit in (
        ("/sys/fs/cgroup/memory", "memory.usage_in_bytes", "memory.limit_in_bytes"),
        ("/sys/fs/cgroup", "memory.current", "memory.max"),
    ):
        with contextlib.suppress(OSError, ValueError):  # the other version, or `max`: no limit
            _number_in(f"{folder}/{use}")
            return f"{folder}/{use}", _number_in(f"{folder}/{limit}")
    return None


def _number_in(path: str) -> int:
    # Without a file object: each page that a fork touches is copied.
    file = open_file(path, O_RDONLY)
    try:
        return int(read(file, 32))
    finally:
        close(file)


_MEMORY = _memory()


def lacking(error: BaseException) -> str:
    """Returns what the container is short of, by an error; empty where it is short of nothing."""
    if isinstance(error, NoRoom):
        return error.lacks
    # The address space of the session ended (RLIMIT_AS), not the memory of the container.
    if isinstance(error, MemoryError):
        return SESSION_MEMORY
    return _BY_ERRNO.get(error.errno or 0, "") if isinstance(error, OSError) else ""


def lacking_by_end(status: int) -> str:
    """Returns the same by the `waitpid` status of a decoding process: the kernel kills it where memory runs out."""
    return MEMORY if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL else ""


def fills_it(directory: str | os.PathLike[str]) -> bool:
    """Returns true where a session's own files are most of what is used of the container's file space.

    The files of its images do not count: they are there for its cells to read.
    """
    space = os.statvfs(directory)
    used = (space.f_blocks - space.f_bfree) * space.f_frsize
    own = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            if _OFFERED.fullmatch(name):
                continue
            try:
                own += Path(folder, name).lstat().st_blocks * _BLOCK_BYTES
            except OSError:  # it has just gone
                continue
    # A session that fills the space itself gets the error of its own code, and is not excused.
    return own * 2 > used


def is_used_up(directory: str | os.PathLike[str], file_bytes: int) -> bool:
    """Returns true where `file_bytes` may find no room in a session's directory, and not by its own doing."""
    space = os.statvfs(directory)
    # Blocks or inodes: either can run out.
    is_short = space.f_bavail * space.f_frsize < file_bytes or space.f_favail == 0
    return is_short and not fills_it(directory)
