"""Index of a folder of records: what was done of every item, without the data. About half a KiB an item and sample."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from sys import intern
from typing import NamedTuple

from codedance_verl.records import leases
from codedance_verl.records.record import Head, Record, Status, decode, decode_head
from codedance_verl.trajectories.lines import raw_lines


class Try(NamedTuple):
    """Try that counts for a sample: the last one, by its number. Digest of the item, shortened to 16 characters."""

    attempt: int
    status: Status
    written_at: float
    writer: str
    item_sha256: str


@dataclass
class Passed:
    """Lines that do not count.

    Attributes:
        broken: no records, or of a newer version.
        foreign: of another key.
        twice: of a try that another line has recorded before (by `written_at`, then by writer).
        cut: behind the end of a writer that was killed or taken for dead, half a line included.
    """

    broken: int = 0
    foreign: int = 0
    twice: int = 0
    cut: int = 0

    def line(self) -> str:
        """`2 cut, 1 broken`; empty where every line counts."""
        return ", ".join(f"{count} {name}" for name, count in vars(self).items() if count)


@dataclass
class _State:
    tries: dict[str, dict[int, Try]] = field(default_factory=dict)
    offsets: dict[str, int] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)
    passed: Passed = field(default_factory=Passed)


class Index:
    """Tries by item and sample. `refresh` reads what was added since the last time, whole lines alone."""

    def __init__(self, folder: Path, key: str) -> None:
        self._folder, self._key = folder, key
        self._state = _State()

    @property
    def passed(self) -> Passed:
        """Lines that do not count, as far as they were read."""
        return self._state.passed

    @property
    def items(self) -> Collection[str]:
        """Ids of the items that have a record."""
        return self._state.tries.keys()

    @property
    def samples(self) -> int:
        """Samples that have a record."""
        return sum(map(len, self._state.tries.values()))

    def tries(self, item: str) -> Mapping[int, Try]:
        """Tries of an item that count, by sample."""
        return self._state.tries.get(item, {})

    def every_try(self) -> Iterator[tuple[str, int, Try]]:
        """Item, sample and the try that counts, of all."""
        for item, tries in self._state.tries.items():
            for sample, one in tries.items():
                yield item, sample, one

    def offset(self, writer: str) -> int:
        """Bytes of a writer's records that were read: the end of the last whole line, or of what counts."""
        return self._state.offsets.get(writer, 0)

    def refresh(self) -> None:
        """Reads what was added. Raises OSError."""
        for writer in leases.writers(self._folder):
            self.read(writer)

    def read(self, writer: str) -> None:
        """Reads what was added to the records of one writer. Raises OSError."""
        if writer in self._state.ended:
            return
        end = leases.sealed(self._folder, writer)
        if end is not None and self.offset(writer) > end:
            # It wrote more after whoever sealed it had looked, and this index has read that: begin again without it.
            self._state = _State()
            self.refresh()
            return
        for offset, length, line in raw_lines(leases.records_file(self._folder, writer), self.offset(writer)):
            # what lies behind is counted below, as cut and not as broken
            if end is not None and offset + length > end:
                break
            self._add(writer, line)
            self._state.offsets[writer] = offset + length
        if end is not None:
            self._state.ended.add(writer)
            self._state.passed.cut += _lines_behind(leases.records_file(self._folder, writer), end)

    def counted(self) -> Iterator[Record]:
        """Records that count, with their data, writer by writer. Raises OSError."""
        for writer in leases.writers(self._folder):
            end = self.offset(writer)
            for offset, _, line in raw_lines(leases.records_file(self._folder, writer)):
                # what came after the index was read may change which try counts
                if offset >= end:
                    break
                record = decode(line) if line is not None else None
                if record is not None and self._counts(record, writer):
                    yield record

    def _counts(self, record: Record, writer: str) -> bool:
        counted = self.tries(record.item).get(record.sample)
        return record.key == self._key and counted == _try_of(record, writer)

    def _add(self, writer: str, line: bytes | None) -> None:
        head = decode_head(line) if line is not None else None
        if head is None:
            self.passed.broken += 1
        elif head.key != self._key:
            self.passed.foreign += 1
        else:
            self._count(head, _try_of(head, writer))

    def _count(self, head: Head, new: Try) -> None:
        tries = self._state.tries.setdefault(head.item, {})
        old = tries.get(head.sample)
        if old is None or new.attempt > old.attempt:
            tries[head.sample] = new
        elif new.attempt == old.attempt:
            self.passed.twice += 1
            # one choice for all readers, in whatever order they come upon the two
            tries[head.sample] = min(old, new, key=lambda one: (one.written_at, one.writer))


def _try_of(record: Record | Head, writer: str) -> Try:
    # the names of a few writers stand in very many tries
    return Try(record.attempt, record.status, record.written_at, intern(writer), record.item_sha256[:16])


def _lines_behind(path: Path, offset: int) -> int:
    """Lines from an offset on, the last one also where it lacks its newline."""
    count, last = 0, b"\n"
    with path.open("rb") as stream:
        stream.seek(offset)
        while block := stream.read(1 << 20):
            count, last = count + block.count(b"\n"), block[-1:]
    return count + (last != b"\n")
