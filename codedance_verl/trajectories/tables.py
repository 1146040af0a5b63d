"""The SQLite file of an index: its tables, a connection for each thread, and one writer at a time."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from codedance_verl.runtime.locks import Locked, exclusive_lock
from codedance_verl.trajectories.summary import QUOTED_COLUMNS

VERSION = 4
"""Of the tables; an index of another version is rebuilt."""

WAIT_SECONDS = 600.0
"""For another process that writes to the index."""

_POLL_SECONDS = 0.1

# AUTOINCREMENT: a number stands in addresses and marks what is new, so it is never given twice.
_TABLES = f"""
CREATE TABLE runs (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE, folder TEXT);
CREATE TABLE files (
    id INTEGER PRIMARY KEY AUTOINCREMENT, run INTEGER, path TEXT UNIQUE, split TEXT, step INTEGER,
    inode INTEGER, changed INTEGER, read_to INTEGER, edges BLOB, broken INTEGER
);
CREATE TABLE trajectories (
    id INTEGER PRIMARY KEY AUTOINCREMENT, run INTEGER, file INTEGER, at INTEGER, length INTEGER, {QUOTED_COLUMNS}
);
CREATE INDEX by_step ON trajectories (run, step DESC, split, "group", sample);
CREATE INDEX by_record ON trajectories (record, run, step, sample);
CREATE INDEX by_file ON trajectories (file);
PRAGMA user_version = {VERSION};
"""


class Tables:
    """The file at `path`. Methods may be called from several threads."""

    def __init__(self, path: Path) -> None:
        """Open or make it; one that is broken or of another version is rebuilt.

        Raises:
            OSError, sqlite3.OperationalError: it cannot be written.
            UserError: another process opens it for too long.
        """
        self._path = path
        self._busy = (
            f"{path}: another process has been at this index for {WAIT_SECONDS:.0f} s; end it, or choose another "
            "folder with --cache"
        )
        self._local = threading.local()
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # a lock of its own: nobody waits here for files to be read, nor has a file open that is being made anew
        with exclusive_lock(path.with_suffix(".opening"), self._busy, WAIT_SECONDS, _POLL_SECONDS):
            if not self._fits():
                self._rebuild()

    @property
    def db(self) -> sqlite3.Connection:
        """The connection of the calling thread."""
        # Connections of sqlite3 belong to the thread that opened them.
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = sqlite3.connect(self._path, timeout=30.0, isolation_level=None)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = OFF")  # a cache: what a crash loses is read again
            self._local.connection = connection
        return connection

    def close(self) -> None:
        """Close the connection of the calling thread."""
        connection = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            self._local.connection = None

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All of it or nothing."""
        self.db.execute("BEGIN IMMEDIATE")
        try:
            yield self.db
        except BaseException:
            self.db.execute("ROLLBACK")
            raise
        self.db.execute("COMMIT")

    def alone(self, work: Iterator[int]) -> Iterator[int]:
        """Yields what `work` does while no other process or thread is at it, and 0 now and then until it is its turn.

        Raises:
            UserError: its turn does not come.
        """
        deadline = time.monotonic() + WAIT_SECONDS
        while True:  # polled here, not by the lock: the caller gets to run between two tries
            try:
                with exclusive_lock(self._path.with_suffix(".writing"), self._busy):
                    yield from work
                    return
            except Locked:
                if time.monotonic() > deadline:
                    raise
            time.sleep(_POLL_SECONDS)
            yield 0

    def _fits(self) -> bool:
        try:
            fits = bool(self.db.execute("PRAGMA user_version").fetchone()[0] == VERSION)
        except sqlite3.DatabaseError:
            fits = False
        if not fits:
            self.close()
        return fits

    def _rebuild(self) -> None:
        # The log and the shared memory of WAL mode belong to the old file.
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self._path}{suffix}").unlink(missing_ok=True)
        self.db.executescript(_TABLES)
