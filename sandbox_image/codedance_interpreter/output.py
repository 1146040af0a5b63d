"""Capture of what a cell writes to stdout and stderr: Python, C libraries and subprocesses alike, in order.

File descriptors 1 and 2 of the runner are an anonymous memory file which the supervisor of the session holds open too.
So the text survives a crash or a kill of the runner, and no pump thread is needed.
"""

from __future__ import annotations

import fcntl
import io
import os
import sys
from os import write as _write

CAPTURE_BYTES = 4 * 1024 * 1024


def open_capture() -> int:
    """Opens a new memory file (descriptor). It is emptied before each cell, so all writing is at its end."""
    capture = os.memfd_create("stdout")
    fcntl.fcntl(capture, fcntl.F_SETFL, os.O_APPEND)
    return capture


class _BoundedWriter(io.RawIOBase):
    """Writer to a descriptor until `CAPTURE_BYTES` are through; it swallows the rest: a flood costs no memory."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._left = CAPTURE_BYTES

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def write(self, data: bytes) -> int:  # type: ignore[override]  # any buffer in CPython, bytes-like is all we need
        view = memoryview(data).cast("B")
        kept = view[: max(self._left, 0)]
        self._left -= len(view)
        while kept:
            kept = kept[_write(self._descriptor, kept) :]
        return len(view)


def redirect(capture: int) -> None:
    """Points descriptors 1 and 2 and `sys.stdout`/`sys.stderr` of this process at `capture`."""
    os.dup2(capture, 1)
    os.dup2(capture, 2)
    # Python's own writing is bounded here; that of C code and subprocesses by the limit on file sizes.
    raw: io.RawIOBase = _BoundedWriter(1)
    buffered = io.BufferedWriter(raw, 8192)
    out = io.TextIOWrapper(buffered, encoding="utf-8", errors="backslashreplace", line_buffering=True)
    # One stream for both, so that their lines keep their order.
    sys.stdout = sys.__stdout__ = out  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = out  # type: ignore[misc]


def collect(capture: int, limit: int) -> tuple[str, bool]:
    """Returns the text so far, and true where it was cut: beyond `limit` bytes head (3/4) and tail (1/4) are kept."""
    size = os.fstat(capture).st_size
    if size <= limit:
        return os.pread(capture, limit, 0).decode("utf-8", "replace"), False
    head = os.pread(capture, limit * 3 // 4, 0).decode("utf-8", "replace")
    tail = os.pread(capture, limit // 4, size - limit // 4).decode("utf-8", "replace")
    return f"{head}\n[... output cut ...]\n{tail}", True
