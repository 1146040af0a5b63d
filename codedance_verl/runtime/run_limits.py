"""Limits of a run: wall time, free space on its disk, and requests to stop.

A thread checks them (`guarded`); any process of the run may ask for its end (`request_stop`). SIGTERM and Ctrl-C ask
the trainer to save and end (`stops_on_signals`).
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from codedance_verl.errors import UserError
from codedance_verl.runtime.watchdog import Watchdog

CHECK_SECONDS = 2.0
MIN_FREE_BYTES = 64 << 20
STOP_FILE = "stop_requested"
SAVE_FILE = "save_and_stop"
STOPPED_EXIT_CODE = 75
"""Exit code of a run that was stopped and has saved: EX_TEMPFAIL of sysexits.h, "try again later"."""

_logger = logging.getLogger(__name__)


class Stopped(Exception):
    """Raised when a run was asked to stop and has saved what it had. The message is one line."""


def request_stop(folder: Path, reason: str) -> None:
    """Ends the run in this folder with an error that gives this one-line reason; the first request counts."""
    # Written apart, then linked: the watchdog may read at any moment, and a link never replaces an earlier request.
    target, partial = folder / STOP_FILE, folder / f"{STOP_FILE}.{uuid.uuid4().hex}"
    try:
        partial.write_text(reason)
        with contextlib.suppress(FileExistsError):
            _link(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def _link(path: Path, target: Path) -> None:
    """Gives the file a second name, or a copy where the file system has no hard links. Raises FileExistsError."""
    try:
        os.link(path, target)
    except FileExistsError:
        raise
    except OSError:
        with target.open("x") as file:
            file.write(path.read_text())


def stop_is_wanted(folder: Path) -> bool:
    """True when the run in this folder is to save and end, after a signal or because somebody made the file."""
    try:
        return (folder / SAVE_FILE).exists()
    except OSError as error:  # a file system that does not answer costs this check, not the run
        _logger.warning("%s cannot be read: %s", folder, error)
        return False


@contextlib.contextmanager
def stops_on_signals(folder: Path) -> Iterator[None]:
    """Makes the first SIGTERM or SIGINT inside the block ask the trainer to save and end, a second one end the run.

    Where the folder cannot be written the trainer cannot be asked, and the first signal ends the run. Works in the main
    thread, inside `guarded`, which bounds the trainer's time.
    """
    asked = threading.Event()

    def stop(number: int, _frame: object) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        name = signal.Signals(number).name
        try:
            (folder / SAVE_FILE).touch()
        except OSError as error:  # no other exception would end Ray's waiting
            raise KeyboardInterrupt(
                f"{name}: {folder}: cannot be written ({error.strerror}): nothing is saved"
            ) from None
        print(f"{name}: saving, then ending; again to end at once", flush=True)

    previous = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def guarded(
    folder: Path,
    time_limit_s: float | None,
    min_free_bytes: int = MIN_FREE_BYTES,
    check_seconds: float = CHECK_SECONDS,
    stop_grace_s: float | None = None,
) -> Iterator[None]:
    """Raises `UserError` inside the block when it takes too long, the disk runs full, or a process asks for its end.

    Works in the main thread only: the watching thread interrupts it with SIGUSR1, also out of a blocking `ray.get`.
    Inside the block that is a `KeyboardInterrupt`, the one exception of a signal handler at which Ray stops waiting.

    Args:
        folder: the run's folder.
        time_limit_s: wall seconds, None for no limit.
        min_free_bytes: less free space than this ends the run.
        check_seconds: time between two checks.
        stop_grace_s: wall seconds that a run has to end by itself once it was asked to, None for no limit.
    """
    found: list[str] = []
    limits = _RunLimits(folder, time_limit_s, stop_grace_s, min_free_bytes)

    def interrupt(*_: object) -> None:
        if not watchdog.stopped:  # a signal that comes late must not end what follows the block
            raise KeyboardInterrupt(found[0])

    def poll() -> bool:
        reason = limits.exceeded()
        if reason and not watchdog.stopped:
            found.append(reason)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
        return bool(reason)

    for name in (STOP_FILE, SAVE_FILE):  # of an earlier start of the run
        (folder / name).unlink(missing_ok=True)
    previous = signal.signal(signal.SIGUSR1, interrupt)
    watchdog = Watchdog(check_seconds, poll, "run-limits")
    try:
        yield
    except KeyboardInterrupt:
        if found:
            raise UserError(found[0]) from None
        raise
    finally:
        watchdog.stop()
        signal.signal(signal.SIGUSR1, previous)


class _RunLimits:
    """Limits of a run, whose time begins with the object."""

    def __init__(
        self, folder: Path, time_limit_s: float | None, stop_grace_s: float | None, min_free_bytes: int
    ) -> None:
        self._folder, self._min_free_bytes = folder, min_free_bytes
        self._time_limit_s, self._stop_grace_s = time_limit_s, stop_grace_s
        self._started = time.monotonic()
        self._stop_asked_at: float | None = None

    def exceeded(self) -> str | None:
        """Returns why the run must end now, in one line. Times come first, since they need no disk.

        Raises:
            OSError: the disk does not answer.
        """
        return self._overdue() or self._asked_for() or self._out_of_room()

    def _overdue(self) -> str | None:
        now = time.monotonic()
        if self._time_limit_s is not None and now - self._started > self._time_limit_s:
            return (
                f"time_limit_s={self._time_limit_s}: the run was stopped at its time limit; start it again with a "
                "higher limit to resume from the last checkpoint"
            )
        if self._stop_grace_s is not None and now - (self._stop_asked_at or now) > self._stop_grace_s:
            return (
                f"stop_grace_s={self._stop_grace_s:g}: the run was asked to end, and has not ended within that time; "
                "the last checkpoint is kept"
            )
        return None

    def _asked_for(self) -> str | None:
        if self._stop_asked_at is None and stop_is_wanted(self._folder):
            self._stop_asked_at = time.monotonic()
        with contextlib.suppress(FileNotFoundError):
            return (self._folder / STOP_FILE).read_text()  # one that is empty is being written
        return None

    def _out_of_room(self) -> str | None:
        free = shutil.disk_usage(self._folder).free
        if free >= self._min_free_bytes:
            return None
        return (
            f"{self._folder}: the disk is full ({free / 2**20:.0f} MiB free); free some space and start the run again "
            "to resume from the last checkpoint"
        )
