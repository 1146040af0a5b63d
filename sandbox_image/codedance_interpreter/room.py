"""Lack of room: the failures that are the container's and say nothing about what was asked of it."""

from __future__ import annotations

import errno
import os
import signal

FILES, MEMORY, SESSION_MEMORY, PROCESSES = "files", "memory", "session_memory", "processes"
_BY_ERRNO = {errno.ENOSPC: FILES, errno.EDQUOT: FILES, errno.ENOMEM: MEMORY, errno.EAGAIN: PROCESSES}


class NoRoom(Exception):
    """What was to be done does not fit; `lacks` is one of the four words above."""

    def __init__(self, lacks: str) -> None:
        super().__init__(lacks)
        self.lacks = lacks


def lacking(error: BaseException) -> str:
    """What the container is short of, by an error; empty where it is short of nothing."""
    if isinstance(error, NoRoom):
        return error.lacks
    if isinstance(error, MemoryError):
        return SESSION_MEMORY
    return _BY_ERRNO.get(error.errno or 0, "") if isinstance(error, OSError) else ""


def lacking_by_end(status: int) -> str:
    """The same by the `waitpid` status of a process that decoded an image: the kernel kills where memory runs out."""
    return MEMORY if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL else ""
