"""Lock files that keep other processes out (`flock`). A lock ends with the process that holds it, however that ends."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from codedance_verl.errors import UserError

RUN_LOCK = ".lock"
"""Name of the lock file in a run's folder."""

_WITHOUT_LOCKS = (errno.ENOTSUP, errno.ENOLCK, errno.ENOSYS)
_open_files: set[IO[bytes]] = set()
_logger = logging.getLogger(__name__)


class Locked(UserError):
    """Another process holds the lock."""


@contextlib.contextmanager
def exclusive_lock(path: Path, busy: str, wait_s: float = 0.0, poll_s: float = 0.5) -> Iterator[bool]:
    """Holds a lock file inside the block. Yields False on a file system without locks, where nobody is kept out.

    Raises:
        Locked: with the message `busy`; another process holds it, and still does after `wait_s` seconds.
        OSError: the file cannot be opened.
    """
    deadline = time.monotonic() + wait_s
    with path.open("wb") as file:
        _open_files.add(file)
        try:
            while (held := _acquire(file)) is None:
                if time.monotonic() >= deadline:
                    raise Locked(busy)
                time.sleep(poll_s)
            yield held
        finally:
            _open_files.discard(file)


@contextlib.contextmanager
def run_lock(run_dir: Path, busy: str = "") -> Iterator[None]:
    """Keeps other runs out of the run's folder. A file system without locks lets them in, which is logged.

    Raises:
        Locked: with `busy`, or a line that names the folder; another run is in it.
    """
    busy = busy or (
        f"run_dir={run_dir}: another run is in progress there; wait for its end, or end it, or choose another folder"
    )
    with exclusive_lock(run_dir / RUN_LOCK, busy) as held:
        if not held:
            _logger.warning("%s: no locks on that file system; a second start would not be noticed", run_dir)
        yield


def _acquire(file: IO[bytes]) -> bool | None:
    """True when the lock is taken, False where there are no locks, None while another process has it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return None
    except OSError as error:
        if error.errno not in _WITHOUT_LOCKS:
            raise
        return False
    return True


def _close_in_child() -> None:
    # A lock belongs to the open file, which a fork shares: a child that outlives its parent must not keep it.
    for file in _open_files:
        file.close()
    _open_files.clear()


os.register_at_fork(after_in_child=_close_in_child)
