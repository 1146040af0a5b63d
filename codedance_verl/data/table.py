"""Canonical rows on disk: an Arrow file that every reader maps into memory, written once from any mixture of files.

verl's own loaders hold all files in memory and refuse those of different writers. Here a row is read when it is asked
for, and the pages it lies in belong to the operating system: processes share them, and memory does not grow with the
data. Images that files hold are copied into the table; those that are files of their own stay where they are.
"""

from __future__ import annotations

import functools
import hashlib
import json
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from codedance_verl.data.fields import Message, Source
from codedance_verl.data.names import RecordNames
from codedance_verl.data.reading import fault_line, open_rows, refusal
from codedance_verl.data.rows import DEFAULT_KEYS, CanonicalRow, Keys, Kind
from codedance_verl.errors import UserError
from codedance_verl.runtime.atomic import replacing
from codedance_verl.runtime.locks import exclusive_lock

# Part of the name of a table: changes with what it holds, so that no reader takes an older one.
FORMAT = "3"

BATCH_BYTES = 16 << 20
BATCH_ROWS = 1_000
# Seconds that a process waits for another one that writes the table.
LONGEST_BUILD_S = 6 * 3600.0

_IMAGE = pa.struct([("bytes", pa.large_binary()), ("path", pa.string())])
_SCHEMA = pa.schema([("record", pa.large_string()), ("images", pa.list_(_IMAGE))])


@dataclass(frozen=True)
class StoredImage:
    """An encoded image by its place in a table; `read_bytes` is that of a path."""

    table: str
    row: int
    index: int

    def read_bytes(self) -> bytes:
        """Encoded image."""
        batch, row = _open_table(self.table).locate(self.row)
        return bytes(batch.column(1)[row][self.index]["bytes"].as_py())


StoredRow = CanonicalRow[StoredImage | Path]
"""A row of a table; the `extra_info` of a question holds its name as `record_id`."""


@dataclass(frozen=True)
class RowTable:
    """Rows of a table, all or some, in the order of `rows`; has what verl uses of a `datasets.Dataset`."""

    path: str
    rows: np.ndarray[Any, np.dtype[np.int64]]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, item: int) -> StoredRow:
        row = int(self.rows[item])
        batch, place = _open_table(self.path).locate(row)
        record = json.loads(batch.column(0)[place].as_py())
        paths = [image["path"].as_py() for image in batch.column(1)[place]]
        messages = tuple(Message(**message) for message in record.pop("messages"))
        sources = tuple(Path(path) if path else StoredImage(self.path, row, k) for k, path in enumerate(paths))
        return CanonicalRow(messages, sources, **record)

    def select(self, indices: Iterable[int]) -> RowTable:
        """Rows at these places."""
        return RowTable(self.path, self.rows[np.fromiter(indices, dtype=np.int64)])

    def filter(self, keep: Callable[[StoredRow], bool]) -> RowTable:
        """Rows that are to be kept."""
        return self.select(index for index in range(len(self)) if keep(self[index]))

    def sample(self, count: int, shuffle: bool, seed: int | None) -> RowTable:
        """Draws `count` rows at most, or takes the first, as verl's datasets do; all where `count` is below 1."""
        if not 0 < count < len(self):
            return self
        if not shuffle:
            return self.select(range(count))
        return self.select(np.random.default_rng(seed).choice(len(self), size=count, replace=False).tolist())


def open_table(files: Sequence[Path], folder: Path, needs: Kind, keys: Keys = DEFAULT_KEYS) -> RowTable:
    """Rows of the files, from the table in `folder`, which is written where it is not there yet.

    Processes that ask for the same table at once wait for the one that writes it.

    Raises UserError: a file or a row is bad, or the disk does not take the table.
    """
    path = folder.absolute() / f"{_key(files, needs, keys)}.arrow"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = path.with_suffix(".lock")
        busy = f"{lock}: another process has held it for hours; end it and start again"
        with exclusive_lock(lock, busy, LONGEST_BUILD_S) as held:
            if not path.exists():
                if held:  # without locks each process writes the table for itself, and the last one's stays
                    _remove_broken_off(path)
                _write(path, files, needs, keys)
    except OSError as error:
        raise UserError(
            f"data.table_dir: cannot write {path}: {error.strerror or error}; free some space or name another folder"
        ) from error
    return RowTable(str(path), np.arange(_open_table(str(path)).starts[-1], dtype=np.int64))


class _Table:
    """An open table; `starts` has the number of the first row of each batch, and that of all rows."""

    def __init__(self, path: str) -> None:
        self._reader = pa.ipc.open_file(pa.memory_map(path))
        self._one_by_one = threading.Lock()  # pyarrow does not say that its reader may be used by several threads
        counts = [self._reader.get_batch(index).num_rows for index in range(self._reader.num_record_batches)]
        self.starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)

    def locate(self, row: int) -> tuple[pa.RecordBatch, int]:
        """Batch that a row lies in, and its place there."""
        index = int(np.searchsorted(self.starts, row, side="right")) - 1
        with self._one_by_one:
            return self._reader.get_batch(index), row - int(self.starts[index])


_open_table = functools.lru_cache(maxsize=8)(_Table)


def _key(files: Sequence[Path], needs: Kind, keys: Keys) -> str:
    """Name of a table, which differs where its content would."""
    digest = hashlib.sha256(repr((FORMAT, needs.name, keys)).encode())
    for file in files:
        try:
            stat = file.stat()
        except OSError:
            continue  # an error when the file is opened
        digest.update(repr((str(file.absolute()), stat.st_size, stat.st_mtime_ns)).encode())
    return f"{needs.name.lower()}-{digest.hexdigest()[:16]}"


def _remove_broken_off(path: Path) -> None:
    """Deletes what processes left that were killed while they wrote this table."""
    for partial in path.parent.glob(f"{path.stem}.*.partial"):
        partial.unlink(missing_ok=True)


def _write(path: Path, files: Sequence[Path], needs: Kind, keys: Keys) -> None:
    with (
        replacing(path, writer=secrets.token_hex(8)) as partial,  # nodes may have processes of one number
        pa.OSFile(str(partial), "wb") as sink,
        pa.ipc.new_file(sink, _SCHEMA) as writer,
    ):
        for batch in _batches(_canonical(files, needs, keys)):
            writer.write_batch(batch)


def _canonical(files: Sequence[Path], needs: Kind, keys: Keys) -> Iterator[tuple[CanonicalRow[Source], str]]:
    """Yields each row with its name."""
    names = RecordNames()
    for file in files:
        rows = open_rows(file, needs, keys)
        for read in rows.read():
            if (row := read.row) is None:
                raise refusal(fault_line(rows.origin.path, read.number, read.fault), needs)
            yield row, names.name(row.data_source, row.extra_info, rows.origin.path, read.number)


def _batches(rows: Iterable[tuple[CanonicalRow[Source], str]]) -> Iterator[pa.RecordBatch]:
    held: list[dict[str, Any]] = []
    size = 0
    for row, name in rows:
        held.append({"record": _encoded(row, name), "images": [_stored(source) for source in row.sources]})
        size += sum(len(source) for source in row.sources if isinstance(source, bytes)) + len(held[-1]["record"])
        if size >= BATCH_BYTES or len(held) >= BATCH_ROWS:
            yield pa.RecordBatch.from_pylist(held, schema=_SCHEMA)
            held, size = [], 0
    if held:
        yield pa.RecordBatch.from_pylist(held, schema=_SCHEMA)


def _stored(source: Source) -> dict[str, Any]:
    return {"bytes": source, "path": None} if isinstance(source, bytes) else {"bytes": None, "path": str(source)}


def _encoded(row: CanonicalRow[Source], name: str) -> str:
    record = {**vars(row), "messages": [vars(message) for message in row.messages]}
    del record["sources"]  # the images stand in a column of their own
    if row.data_source:
        record["extra_info"] = {**row.extra_info, "record_id": name}
    return json.dumps(record, default=_as_text)


def _as_text(value: Any) -> str | None:
    """Values that JSON has no form for; bytes are images that stand there a second time."""
    return None if isinstance(value, bytes) else str(value)
