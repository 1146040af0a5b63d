"""Ends a run that would otherwise wait for ever, fill the disk or learn nothing, from a thread that watches.

What it watches: wall time, free space, and whether a worker has asked for the end (`request_stop`).
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from codedance_verl.errors import UserError

CHECK_SECONDS = 2.0
MIN_FREE_BYTES = 64 << 20
STOP_FILE = "stop_reason.txt"


def request_stop(folder: Path, reason: str) -> None:
    """Have the driver end the run of this folder with an error, from any process of it; the first reason stays."""
    with contextlib.suppress(FileExistsError), (folder / STOP_FILE).open("x", encoding="utf-8") as file:
        file.write(reason)


@contextlib.contextmanager
def guarded(
    folder: Path,
    time_limit_s: float | None,
    min_free_bytes: int = MIN_FREE_BYTES,
    check_seconds: float = CHECK_SECONDS,
) -> Iterator[None]:
    """Raise `UserError` inside the block when it takes too long, the disk under `folder` runs full, or a worker asks.

    Works in the main thread only: the watching thread interrupts it with SIGUSR1, also out of a blocking `ray.get`.

    Args:
        folder: the run's folder.
        time_limit_s: wall seconds, None for no limit.
        min_free_bytes: less free space than this ends the run.
        check_seconds: time between two looks.
    """
    found: list[str] = []
    done = threading.Event()

    def interrupt(*_: object) -> NoReturn:
        raise UserError(found[0])

    def watch() -> None:
        started = time.monotonic()
        while not done.wait(check_seconds):
            if reason := _reason(folder, time.monotonic() - started, time_limit_s, min_free_bytes):
                found.append(reason)
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
                return

    (folder / STOP_FILE).unlink(missing_ok=True)  # of an earlier start of the run
    previous = signal.signal(signal.SIGUSR1, interrupt)
    watcher = threading.Thread(target=watch, name="run-guard", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
        signal.signal(signal.SIGUSR1, previous)


def _reason(folder: Path, elapsed_s: float, time_limit_s: float | None, min_free_bytes: int) -> str | None:
    if time_limit_s is not None and elapsed_s > time_limit_s:
        return (
            f"time_limit_s={time_limit_s}: the run was stopped at its time limit; start it again with a higher limit "
            "to resume from the last checkpoint"
        )
    if reason := _requested(folder):
        return f"the run was stopped by a worker: {reason}; start it again to resume from the last checkpoint"
    free = shutil.disk_usage(folder).free
    if free < min_free_bytes:
        return (
            f"{folder}: the disk is full ({free / 2**20:.0f} MiB free); free some space and start the run again to "
            "resume from the last checkpoint"
        )
    return None


def _requested(folder: Path) -> str | None:
    """The reason that a worker has written; empty while it is being written."""
    file = folder / STOP_FILE
    return file.read_text(encoding="utf-8") if file.is_file() else None
