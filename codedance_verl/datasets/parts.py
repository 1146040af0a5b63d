"""Rewriting of files piece by piece: each piece becomes parts on disk, and the parts one output in the end.

A piece that is done has its tally in `<number>.json`. A run that was ended starts again behind the last of them, and an
output appears whole or not at all.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from codedance_verl.data.parquet import BATCH_ROWS, GroupWriter, batches, open_parquet
from codedance_verl.data.reading import fault_line
from codedance_verl.datasets.pieces import Piece
from codedance_verl.datasets.pool import in_order
from codedance_verl.errors import UserError
from codedance_verl.runtime.atomic import write_atomically
from codedance_verl.runtime.locks import exclusive_lock

_logger = logging.getLogger(__name__)

FORMAT = "2"
"""Part of the key of a run: changes with what parts hold."""

MOST_HELD_BYTES = 64 << 20
"""Bytes of rows, as `size_of` has them, that the parts of a piece hold together before they write."""

SHOWN_FAULTS = 1_000
"""Lines on bad rows that are kept of a piece; all are counted."""


@dataclass(frozen=True)
class Made:
    """Row for one of the outputs, made of the row `number` of a file."""

    number: int
    row: Mapping[str, Any]
    output: str = "all"


@dataclass(frozen=True)
class Fault:
    """Row that cannot be used. `missing` names what is absent, where the row itself is sound: such stops no run."""

    number: int
    text: str
    missing: str = ""


class Job(Protocol):
    """Work on a piece. Its `repr` is part of the key by which an ended run is found again."""

    @property
    def schema(self) -> pa.Schema: ...

    def __call__(self, piece: Piece) -> Iterator[Made | Fault]: ...


@dataclass
class Tally:
    """Counts of a run: rows by output, bad ones with their lines, and what is missing."""

    made: Counter[str] = field(default_factory=Counter)
    bad: int = 0
    lines: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        self.made.update(other.made)
        self.bad += other.bad
        self.lines += other.lines[: SHOWN_FAULTS - len(self.lines)]
        self.missing += other.missing


@contextlib.contextmanager
def parts_folder(out: Path, job: Job, pieces: Sequence[Piece]) -> Iterator[Path]:
    """Folder of the parts of an output, kept when the block raises, so that the same run can go on.

    Raises UserError: another process makes the same output, or the disk fails.
    """
    folder = out.with_name(f"{out.name}.parts-{_key(job, pieces)}")
    # it stays: where it were removed, one process could hold the old file and another a new one
    lock = out.with_name(f".{out.name}.lock")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        busy = f"{out}: another process is making it; wait for its end or name another --out"
        with exclusive_lock(lock, busy) as held:
            if not held:
                _logger.warning("%s: no locks on that file system; a second process would not be noticed", out)
            for stale in out.parent.glob(f"{out.name}.parts-*"):
                if stale != folder:  # of other arguments, or of a file that has changed since
                    shutil.rmtree(stale, ignore_errors=True)
            folder.mkdir(exist_ok=True)
            yield folder
            shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        raise UserError(f"cannot write beside {out}: {error.strerror or error}; name another --out") from error


def write_parts(
    job: Job,
    pieces: Sequence[Piece],
    folder: Path,
    workers: int,
    skip_bad: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Tally:
    """Makes the parts of all pieces that have none yet.

    Args:
        job: work on a piece.
        pieces: in the order of the output.
        folder: that of the parts.
        workers: processes.
        skip_bad: whether bad rows are left out and listed.
        progress: called with rows done and rows in all.

    Raises:
        UserError: a row is bad (the first is named) and `skip_bad` is not set, or what `job` raises.
    """
    tally, done, total = Tally(), 0, sum(piece.rows for piece in pieces)
    work = _PartWriter(job, folder, skip_bad)
    for (_, piece), found in zip(enumerate(pieces), in_order(work, list(enumerate(pieces)), workers), strict=True):
        tally.add(found)
        done += piece.rows
        if progress is not None and total:
            progress(done, total)
    return tally


def part_rows(folder: Path, output: str) -> Iterator[pa.RecordBatch]:
    """Rows of an output in the order of the pieces, some megabytes at a time."""
    for path in sorted(folder.glob(f"*.{output}.parquet")):
        yield from batches(path, open_parquet(path))


def join_parts(folder: Path, output: str, out: Path, schema: pa.Schema) -> None:
    """Writes an output from its parts, whole or not at all. Raises UserError where the disk does not take it."""
    with GroupWriter(out, schema) as writer:
        for batch in part_rows(folder, output):
            writer.add(pa.Table.from_batches([batch]))


def stop_line(path: Path, number: int, fault: str) -> str:
    """Error that ends a run at a bad row."""
    return f"{fault_line(path, number, fault)}; fix or drop the row, or leave such rows out with --skip-bad"


@dataclass(frozen=True)
class _PartWriter:
    """Writer of the parts of one piece, in a process of the pool."""

    job: Job
    folder: Path
    skip_bad: bool

    def __call__(self, numbered: tuple[int, Piece]) -> Tally:
        index, piece = numbered
        record = self.folder / f"{index:06d}.json"
        if not record.exists():
            write_atomically(record, json.dumps(vars(self._write(index, piece))))
        stored = json.loads(record.read_bytes())
        if stored["bad"] and not self.skip_bad:  # of a run that left bad rows out
            raise UserError(f"{stored['lines'][0]}; fix or drop the row, or leave such rows out with --skip-bad")
        return Tally(Counter(stored["made"]), stored["bad"], stored["lines"], stored["missing"])

    def _write(self, index: int, piece: Piece) -> Tally:
        tally = Tally()
        with contextlib.ExitStack() as stack:
            outputs, held = dict[str, _Output](), 0
            for item in self.job(piece):
                if isinstance(item, Fault):
                    self._add_fault(tally, piece, item)
                    continue
                if item.output not in outputs:
                    path = self.folder / f"{index:06d}.{item.output}.parquet"
                    writer = stack.enter_context(GroupWriter(path, self.job.schema))
                    outputs[item.output] = _Output(writer, self.job.schema)
                for fault in outputs[item.output].add(item):
                    self._add_fault(tally, piece, fault)
                held += size_of(item.row)
                if held > MOST_HELD_BYTES:  # of all together: a mixture has hundreds of outputs
                    self._flush(outputs.values(), tally, piece)
                    held = 0
            self._flush(outputs.values(), tally, piece)
            tally.made.update({name: output.rows for name, output in outputs.items()})
        return tally

    def _flush(self, outputs: Iterable[_Output], tally: Tally, piece: Piece) -> None:
        for output in outputs:
            for fault in output.flush():
                self._add_fault(tally, piece, fault)
            output.write()

    def _add_fault(self, tally: Tally, piece: Piece, fault: Fault) -> None:
        if fault.missing:
            tally.missing.append(fault.missing)
            return
        if not self.skip_bad:
            raise UserError(stop_line(piece.path, fault.number, fault.text))
        tally.bad += 1
        if len(tally.lines) < SHOWN_FAULTS:
            tally.lines.append(fault_line(piece.path, fault.number, fault.text))


class _Output:
    """Rows on their way into a part: a batch at a time, since a table of one row costs as much as one of hundreds."""

    def __init__(self, writer: GroupWriter, schema: pa.Schema) -> None:
        self._writer, self._schema = writer, schema
        self._held: list[Made] = []
        self.rows = 0

    def add(self, item: Made) -> list[Fault]:
        """Takes a row; returns faults of rows that Arrow has no values for."""
        self._held.append(item)
        return self.flush() if len(self._held) >= BATCH_ROWS else []

    def write(self) -> None:
        """Writes what the part has in hand to the disk."""
        self._writer.flush()

    def flush(self) -> list[Fault]:
        """Hands the rows in hand to the part."""
        held, self._held = self._held, []
        if not held:
            return []
        try:
            self._writer.add(pa.Table.from_pylist([item.row for item in held], schema=self._schema))
        except (pa.ArrowException, ValueError, OverflowError, TypeError) as error:  # half of a surrogate pair, say
            if len(held) == 1:
                return [Fault(held[0].number, f"a value of it cannot be stored ({error})")]
            faults = []
            for item in held:
                self._held = [item]
                faults += self.flush()
            return faults
        self.rows += len(held)
        return []


def size_of(value: Any) -> int:
    """Bytes of a row's texts, roughly, and eight for each other value."""
    if isinstance(value, str | bytes):
        return len(value) + 8
    if isinstance(value, Mapping):
        return sum(map(size_of, value.values()))
    return sum(map(size_of, value)) if isinstance(value, list | tuple) else 8


def _key(job: Job, pieces: Sequence[Piece]) -> str:
    digest = hashlib.sha256(repr((FORMAT, job)).encode())
    for path in dict.fromkeys(piece.path for piece in pieces):
        stat = path.stat()
        digest.update(repr((str(path.absolute()), stat.st_size, stat.st_mtime_ns)).encode())
    digest.update(repr([(piece.groups, piece.first_row) for piece in pieces]).encode())
    return digest.hexdigest()[:16]
