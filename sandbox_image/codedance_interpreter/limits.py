"""Limits of one session. The host sends them when it opens a session; the child applies them to itself."""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Limits:
    """Bounds of one session; all are positive integers.

    `memory_bytes` is the address space beyond what the zygote has mapped already; `processes` counts threads too;
    `file_bytes` bounds a single file; `stdout_bytes`, `images` and `image_pixels` bound what one cell can show.
    """

    memory_bytes: int
    processes: int
    open_files: int
    file_bytes: int
    stdout_bytes: int
    images: int
    image_pixels: int

    @classmethod
    def from_message(cls, message: dict[str, Any]) -> Limits:
        """Reads the map of an `open` request; raises `KeyError` or `ValueError` for a missing or senseless one."""
        values = {field.name: int(message[field.name]) for field in fields(cls)}
        if min(values.values()) < 1:
            raise ValueError("every limit must be at least 1")
        return cls(**values)


def mapped_bytes() -> int:
    """Returns the address space of this process, in bytes."""
    return _pages(0)


def resident_bytes() -> int:
    """Returns the memory of this process that is in use, shared pages included, in bytes."""
    return _pages(1)


def _pages(column: int) -> int:
    """Returns a column of `statm` (proc(5)), which counts pages, in bytes."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[column]) * os.sysconf("SC_PAGE_SIZE")


Rlimit = tuple[int, tuple[int, int]]
"""Arguments of `resource.setrlimit`."""


def rlimits(limits: Limits, mapped_bytes: int, per_uid: bool) -> tuple[Rlimit, ...]:
    """Returns what bounds a process and all its children; hard limits, so nothing can raise them again.

    `mapped_bytes` is the address space that the session begins with. The process count is kernel-wide per uid, so it is
    set only where the session has a uid of its own (`per_uid`).
    """
    bounds = {
        resource.RLIMIT_AS: mapped_bytes + limits.memory_bytes,
        resource.RLIMIT_NOFILE: limits.open_files,
        resource.RLIMIT_FSIZE: limits.file_bytes,
        resource.RLIMIT_CORE: 0,
    }
    if per_uid:
        bounds[resource.RLIMIT_NPROC] = limits.processes
    found = []
    for which, bound in bounds.items():
        hard = resource.getrlimit(which)[1]
        bound = bound if hard == resource.RLIM_INFINITY else min(bound, hard)
        found.append((which, (bound, bound)))
    return tuple(found)
