"""Writer of one process: takes items that nobody else does, and appends what came of them."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from codedance_verl.records import leases
from codedance_verl.records.index import Index
from codedance_verl.records.key import ChangedKey, Json, Key
from codedance_verl.records.leases import LeaseLost, Signs
from codedance_verl.records.record import FAILURES, Asked, Record, Status, encode, plain_id
from codedance_verl.runtime.atomic import flush
from codedance_verl.trajectories.writer import append_line

_LISTED = 5
"""Items that a message lists."""

_logger = logging.getLogger(__name__)

_Item = TypeVar("_Item", bound=Asked)


@dataclass(frozen=True)
class Work(Generic[_Item]):
    """Sample of an item that this process has to do, and the number of the try."""

    item: _Item
    sample: int
    attempt: int


class Writer:
    """Appends records to a file of its own. `add` may be called from any thread, `work` from one.

    Made by `Store.writer`. Every record is one whole line when `add` returns, whatever becomes of the process then.
    """

    def __init__(self, folder: Path, key: Key, name: str, index: Index, lease_s: float, sync_s: float) -> None:
        self.name = name
        self._folder, self._key, self._index, self._sync_s = folder, key, index, sync_s
        self._file = leases.records_file(folder, name)
        self._signs = Signs(folder, lease_s)
        self._lock = threading.Lock()
        self._mine: dict[str, set[int]] = {}
        """Items of this writer with samples that are not recorded."""
        self._retried: Collection[tuple[str, int, int]] = ()
        """Item, sample and number of the failed tries that are followed by another one."""
        self._synced_at = time.monotonic()

    def work(
        self, items: Callable[[], Iterable[_Item]], again: Collection[Status] = (), poll_s: float = 2.0
    ) -> Iterator[Work[_Item]]:
        """Samples that are left, one by one, each claimed for this process when its item is reached.

        Where others have items, it waits for them at the end, asleep: they are done, or their process ends and they are
        free. Items of this writer are not waited for.

        Args:
            items: makes an iterator over the items; called again for each pass.
            again: failures that are asked again, those on record when this is called.
            poll_s: seconds between looks at what others have done.

        Raises:
            ChangedKey: an item has records, but is another one now; at the end of the pass,
                so that `Store.plan` is to be asked before.
            OSError: the folder cannot be read or written.
        """
        failures = FAILURES & set(again)
        with self._lock:
            # fixed at the start: what fails again in this run is not asked for ever
            self._retried = {
                (item, n, one.attempt) for item, n, one in self._index.every_try() if one.status in failures
            }
        while True:
            held: list[tuple[str, Asked]] = []
            for item in unchanged(self._folder, items(), self._index):
                owner = self._take(item)
                if owner == self.name:
                    yield from self._samples(item)
                elif owner:
                    held.append((owner, item))
            if not self._wait(held, poll_s):
                return

    def add(self, work: Work[_Item], status: Status, data: Json = None, reason: str = "") -> Record:
        """Appends what came of a sample; returns the record.

        Raises:
            ValueError: `work` has not given it, or it is on record.
            LeaseLost: it does not count; another process has the item.
            OSError: it cannot be written, and nothing of it was.
        """
        record = Record(
            key=self._key.digest,
            item=plain_id(work.item),
            item_sha256=work.item.sha256,
            sample=work.sample,
            attempt=work.attempt,
            status=status,
            reason=reason,
            data=data,
            written_at=time.time(),
        )
        line = encode(record)
        with self._lock:
            if record.sample not in self._mine.get(record.item, ()):
                raise ValueError(f"item {record.item}, sample {record.sample}: on record, or not of this writer")
            append_line(self._file, line)
            self._index.read(self.name)
            self._recorded(record)
            self._sync()
            # after the line was written: before, a seal could come between this look and the line
            if leases.sealed(self._folder, self.name) is not None:
                raise LeaseLost(f"{self._file}: this process gave no sign of life and lost its items to others")
        return record

    @property
    def done(self) -> int:
        """Samples on record, of all writers, without failures that are to be asked again; `refresh` reads on."""
        with self._lock:
            waiting = sum(self._index.tries(name)[n].attempt == attempt for name, n, attempt in self._retried)
            return self._index.samples - waiting

    @property
    def statuses(self) -> Mapping[Status, int]:
        """Samples on record, of all writers, by the status that counts; `refresh` reads on."""
        with self._lock:
            return Counter(one.status for _, _, one in self._index.every_try())

    def refresh(self) -> None:
        """Reads what others have recorded. Raises OSError."""
        with self._lock:
            self._index.refresh()

    def close(self) -> None:
        """Ends the writer; what it has not recorded is free for others. Raises OSError."""
        with self._lock:
            if self._file.exists():
                # on the disk before the seal promises these bytes for good
                flush(self._file)
                self._index.read(self.name)
            leases.seal(self._folder, self.name, self._index.offset(self.name))

    def _take(self, item: Asked) -> str:
        """Name of the writer that has the item, this one after its claim; empty where nothing is left of it."""
        name, number = plain_id(item), 0
        with self._lock:
            # given out in an earlier pass and not yet recorded: waiting for oneself would never end
            if name in self._mine:
                return ""
            while missing := self._missing(item):
                owner = leases.claim(self._folder, name, number, self.name)
                if owner == self.name:
                    self._mine[name] = missing
                    return owner
                if leases.sealed(self._folder, owner) is None:
                    # judged before the files are read, so that a seal counts all that was written until then
                    dead = self._signs.dead(owner)
                    self._index.refresh()
                    if not dead:
                        # its owner may just have finished it
                        return owner if self._missing(item) else ""
                    leases.seal(self._folder, owner, self._index.offset(owner))
                self._index.refresh()  # all that its owners have recorded, before it is taken
                number += 1
        return ""

    def _missing(self, item: Asked) -> set[int]:
        name = plain_id(item)
        tries = self._index.tries(name)
        return {
            sample
            for sample in range(self._key.samples)
            if sample not in tries or (name, sample, tries[sample].attempt) in self._retried
        }

    def _samples(self, item: _Item) -> list[Work[_Item]]:
        with self._lock:
            tries = self._index.tries(plain_id(item))
            attempts = {sample: one.attempt + 1 for sample, one in tries.items()}
            return [Work(item, sample, attempts.get(sample, 0)) for sample in sorted(self._missing(item))]

    def _recorded(self, record: Record) -> None:
        self._mine[record.item].discard(record.sample)
        if not self._mine[record.item]:
            del self._mine[record.item]

    def _wait(self, held: Sequence[tuple[str, Asked]], poll_s: float) -> bool:
        """Waits until an item that others have is free, and returns True, or all are done, and returns False."""
        if held:
            _logger.info("%s: waiting for %d items that other processes have", self._folder, len(held))
        while held:
            # without the lock, which `add` needs in other threads
            time.sleep(poll_s)
            with self._lock:
                self._index.refresh()
                held = [(owner, item) for owner, item in held if self._missing(item)]
                if any(self._free(owner) for owner in {owner for owner, _ in held}):
                    return True
        return False

    def _free(self, owner: str) -> bool:
        return leases.sealed(self._folder, owner) is not None or self._signs.dead(owner)

    def _sync(self) -> None:
        if (now := time.monotonic()) - self._synced_at >= self._sync_s:
            flush(self._file)
            self._synced_at = now


def unchanged(folder: Path, items: Iterable[_Item], index: Index) -> Iterator[_Item]:
    """The items, but those whose records are of an item with another digest.

    Raises ChangedKey: there are such items; after the last one.
    """
    changed: list[str] = []
    count = 0
    for item in items:
        recorded = {one.item_sha256 for one in index.tries(plain_id(item)).values()} - {item.sha256[:16]}
        if not recorded:
            yield item
            continue
        count += 1
        if len(changed) < _LISTED:
            changed.append(f"item {plain_id(item)}: sha256 {min(recorded)}... -> {item.sha256[:16]}...")
    if count:
        first = (
            f"{folder}: {count:,} items are not those its records were made of; restore them, or choose another folder"
        )
        raise ChangedKey("\n".join([first, *changed]))
