"""Store of the records of one key in a folder that several processes and nodes may share."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from codedance_verl.errors import UserError
from codedance_verl.records.index import Index, Passed
from codedance_verl.records.key import ChangedKey, Key
from codedance_verl.records.leases import writer_alive
from codedance_verl.records.record import FAILURES, Asked, Record, Status, plain_id
from codedance_verl.records.writer import Writer, unchanged
from codedance_verl.runtime.atomic import write_atomically
from codedance_verl.runtime.locks import exclusive_lock

KEY_FILE = "key.json"
"""Name of the file that holds the key, in the folder of the records."""

LEASE_S = 120.0
"""Seconds without a sign of life after which a writer on another node is taken for dead. Attributes of files on NFS
may be a minute old."""

_LOCK_WAIT_S = 60.0


@dataclass(frozen=True)
class Plan:
    """What is to be done, in samples of items.

    Attributes:
        total: samples of the items asked for.
        statuses: samples that have a record, by the status that counts.
        again: samples with a failure that are to be asked again.
        unlisted: items that have records and are not asked for.
        passed: lines of the files that do not count.
    """

    total: int
    statuses: Mapping[Status, int]
    again: int
    unlisted: int
    passed: Passed

    @property
    def done(self) -> int:
        """Samples that are not asked any more."""
        return sum(self.statuses.values()) - self.again

    @property
    def left(self) -> int:
        """Samples that are asked."""
        return self.total - self.done


class Store:
    """Records of one key. Made by `open_store`."""

    def __init__(self, folder: Path, key: Key) -> None:
        self.folder, self.key = folder, key

    def plan(self, items: Iterable[Asked], again: Collection[Status] = ()) -> Plan:
        """Compares items, one by one, with the records.

        Args:
            items: items asked for.
            again: failures that are to be asked again.

        Raises:
            ChangedKey: an item has records, but is another one now.
            OSError: the records cannot be read.
        """
        index = self._index()
        statuses: Counter[Status] = Counter()
        total = listed = 0
        for item in unchanged(self.folder, items, index):
            tries = index.tries(plain_id(item))
            total += self.key.samples
            listed += bool(tries)
            statuses.update(one.status for sample, one in tries.items() if sample < self.key.samples)
        retried = sum(statuses[status] for status in FAILURES & set(again))
        return Plan(total, statuses, retried, len(index.items) - listed, index.passed)

    def records(self) -> Iterator[Record]:
        """Records that count, one for each sample of an item, in the order of the files. Raises OSError."""
        return self._index().counted()

    @contextlib.contextmanager
    def writer(self, lease_s: float = LEASE_S, sync_s: float = 1.0) -> Iterator[Writer]:
        """Yields the writer of this process, as a new one, whose unfinished items are free for others afterwards.

        Args:
            lease_s: seconds without a sign of life after which others are taken for dead; alike in all processes.
            sync_s: seconds for which records may be in memory of the operating system alone. The end of a process
                costs none of them, a crash of the machine those; 0 has each on the disk before `add` returns.

        Raises OSError.
        """
        index = self._index()
        with writer_alive(self.folder, lease_s) as name:
            writer = Writer(self.folder, self.key, name, index, lease_s, sync_s)
            try:
                yield writer
            finally:
                writer.close()

    def _index(self) -> Index:
        index = Index(self.folder, self.key.digest)
        index.refresh()
        return index


def open_store(folder: Path, key: Key) -> Store:
    """Store of a folder, which is made if there is none.

    Raises:
        ChangedKey: its records have another key; names each setting that differs, with both values.
        UserError: the folder cannot be used.
    """
    path = folder / KEY_FILE
    try:
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            with exclusive_lock(folder / ".lock", f"{folder}: another process holds its lock", _LOCK_WAIT_S):
                # another process may have written it while this one waited
                if not path.exists():
                    write_atomically(path, key.encode())
    except OSError as error:
        raise UserError(f"{folder}: cannot hold records ({error.strerror or error})") from error
    # read back in any case: the key may be that of another process
    found = existing_store(folder)
    if found.key.digest != key.digest:
        first = f"{folder}: its records were made with other settings; restore these, or choose another folder"
        raise ChangedKey("\n".join([first, *found.key.changes_to(key)]))
    return found


def existing_store(folder: Path) -> Store:
    """Store of a folder that has records, with the key they were made with; the folder may be read-only.

    Raises UserError: it has none, or its key cannot be read.
    """
    path = folder / KEY_FILE
    try:
        return Store(folder, Key.decode(path.read_bytes()))
    except OSError as error:
        raise UserError(f"{folder}: no records ({path.name}: {error.strerror})") from error
    except ValueError as error:
        raise UserError(f"{path}: {error}; restore it, or choose another folder") from error
