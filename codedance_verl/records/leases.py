"""Writers of a folder of records: signs of life, claims on items, and the seal that ends a writer.

Files of a writer, whose name is new at every start of a process:

    <writer>.jsonl      its records; nobody else appends to it
    <writer>.alive      where it runs; touched every few seconds while it does
    <writer>.lock       locked while it runs
    <writer>.sealed     symbolic link to a number: bytes of its records that count, now and for good
    claims/<2 hex>/<digest of the item>.<n>
                        symbolic link to the name of the writer that has the item; n + 1 once the one of n is sealed

Symbolic links are made with their content in one step or not at all, over NFS too, where neither appending by several
nodes nor renaming without replacement is safe. Nothing compares the clocks of two nodes.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

from codedance_verl.errors import UserError
from codedance_verl.runtime.atomic import write_atomically
from codedance_verl.runtime.locks import Locked, exclusive_lock
from codedance_verl.runtime.watchdog import Watchdog

BEATS_PER_LEASE = 5
"""Signs of life within the time after which a writer that gives none is taken for dead."""

_WITHOUT_SYMLINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS)
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class LeaseLost(UserError):
    """This writer was taken for dead: others do its items, and what it writes does not count."""


def records_file(folder: Path, writer: str) -> Path:
    """File of a writer's records."""
    return folder / f"{writer}.jsonl"


def writers(folder: Path) -> list[str]:
    """Writers that have recorded something, by name. Raises OSError."""
    return sorted(path.stem for path in folder.glob("*.jsonl"))


@contextlib.contextmanager
def writer_alive(folder: Path, lease_s: float) -> Iterator[str]:
    """Yields the name of a new writer, which shows signs of life until the end of the block. Raises OSError."""
    host = re.sub(r"[^A-Za-z0-9-]", "-", os.uname().nodename)[:40]
    # chance besides the process id: ids come again, and a name that was sealed must not
    name = f"{host}-{os.getpid()}-{secrets.token_hex(4)}"
    alive, lock = _alive(folder, name), _lock(folder, name)

    def beat() -> None:
        with contextlib.suppress(FileNotFoundError):  # it was sealed, which the next record will meet
            os.utime(alive)

    with exclusive_lock(lock, f"{lock}: taken") as held:
        # Without locks on this file system nobody can tell at once that a process of this machine has ended.
        write_atomically(alive, json.dumps({"boot": _boot() if held else "", "host": host}))
        with Watchdog(lease_s / BEATS_PER_LEASE, beat, "records-alive"):
            yield name


class Signs:
    """Signs of life of other writers, as this process has seen them."""

    def __init__(self, folder: Path, lease_s: float) -> None:
        self._folder, self._lease_s = folder, lease_s
        self._seen: dict[str, tuple[int, float]] = {}

    def dead(self, writer: str) -> bool:
        """True where its process on this machine has ended, or no sign came for as long as a lease lasts.

        That time is measured from the first call for a writer on: what it did before cannot be told without comparing
        clocks. Raises OSError.
        """
        if self._ended_here(writer):
            return True
        try:
            beat = _alive(self._folder, writer).stat().st_mtime_ns
        except FileNotFoundError:
            beat = 0
        # -1 is no beat: a first look only starts the time, whatever it sees
        before, since = self._seen.get(writer, (-1, 0.0))
        if beat != before:
            self._seen[writer] = (beat, time.monotonic())
            return False
        return time.monotonic() - since >= self._lease_s

    def _ended_here(self, writer: str) -> bool:
        try:
            boot = json.loads(_alive(self._folder, writer).read_bytes())["boot"]
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return False
        # the lock of another machine may look free from here, and without locks all do
        if not boot or boot != _boot():
            return False
        try:
            with exclusive_lock(_lock(self._folder, writer), "alive") as free:
                return free
        except Locked:  # its process holds the lock until it ends
            return False


def claim(folder: Path, item: str, number: int, writer: str) -> str:
    """Makes the claim of a number on an item, unless there is one; returns the name of the writer that has it.

    Raises OSError.
    """
    # an id may hold any character, and be longer than the name of a file
    digest = hashlib.sha256(item.encode()).hexdigest()
    path = folder / "claims" / digest[:2] / f"{digest[2:34]}.{number}"
    try:
        return _link_once(path, writer)
    except FileNotFoundError:
        # only the first claim in a folder has to make it: all others cost one call
        path.parent.mkdir(parents=True, exist_ok=True)
        return _link_once(path, writer)


def sealed(folder: Path, writer: str) -> int | None:
    """Bytes of a writer's records that count for good; None while it may write. Raises OSError."""
    try:
        return int(_seal(folder, writer).readlink().name)
    except FileNotFoundError:
        return None


def seal(folder: Path, writer: str, count: int) -> int:
    """Ends a writer at so many bytes of its records, unless it has been ended; returns the bytes that count.

    Raises OSError.
    """
    found = int(_link_once(_seal(folder, writer), str(count)))
    # signs of a sealed writer are never asked for
    for path in (_alive(folder, writer), _lock(folder, writer)):
        path.unlink(missing_ok=True)
    return found


def _link_once(path: Path, target: str) -> str:
    try:
        path.symlink_to(target)
    except FileExistsError:  # also where a server has made it for us, and its answer was lost
        return path.readlink().name
    except OSError as error:
        if error.errno in _WITHOUT_SYMLINKS:
            raise UserError(f"{path.parent}: a file system without symbolic links cannot hold records") from error
        raise
    return target


def _alive(folder: Path, writer: str) -> Path:
    return folder / f"{writer}.alive"


def _lock(folder: Path, writer: str) -> Path:
    return folder / f"{writer}.lock"


def _seal(folder: Path, writer: str) -> Path:
    return folder / f"{writer}.sealed"


def _boot() -> str:
    """Name of this machine since it was started; empty where the system gives none."""
    with contextlib.suppress(OSError):
        return _BOOT_ID.read_text().strip()
    return ""
