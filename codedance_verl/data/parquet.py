"""Parquet files in bounded memory: batches and row groups by bytes, never a file or a column whole.

pyarrow keeps the bytes of a whole file with `pre_buffer`, its default, whatever the batch size, and its `binary`
arrays end at 2 GiB.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from codedance_verl.errors import UserError
from codedance_verl.runtime.atomic import put_in_place

# Bytes of a batch that is read, roughly: rows may hold images, so that a number of rows bounds nothing.
BATCH_BYTES = 8 << 20

# Bytes of a batch, at most, where rows repeat a value that the file has once.
MOST_BATCH_BYTES = 64 << 20

# Rows of a batch, at most.
BATCH_ROWS = 256

# Bytes of a row group that is written, at most, but for a single larger row.
GROUP_BYTES = 64 << 20

# Rows of a row group that is written, at most.
GROUP_ROWS = 10_000

_BUFFER_BYTES = 1 << 20


def open_parquet(path: Path) -> pq.ParquetFile:
    """Opens the file. Raises UserError where there is none or it is no parquet file."""
    if not path.is_file():
        found = "that is a folder" if path.is_dir() else "there is none"
        raise UserError(
            f"no data file at {path}: {found}; name a parquet file of yours (docs/data.md), or make the demo's with "
            "`codedance data make --out FOLDER`"
        )
    try:
        return pq.ParquetFile(path, pre_buffer=False, buffer_size=_BUFFER_BYTES)
    except (pa.ArrowException, OSError) as error:
        raise unreadable(path, error) from error


def is_parquet(path: Path) -> bool:
    """True if there is a file that can be read as one."""
    try:
        pq.read_schema(path)
    except (pa.ArrowException, OSError):
        return False
    return True


def unreadable(path: Path, error: Exception) -> UserError:
    """Error for a file that cannot be read."""
    if path.suffix.lower() in (".json", ".jsonl"):
        return UserError(
            f"{path} is JSON, not a parquet file; make one of it: `codedance data convert` where it is of a published "
            "set, else `pandas.read_json(FILE, lines=True).to_parquet(NEW)`"
        )
    return UserError(f"{path} is not a readable parquet file ({error}); make or download it again")


def batches(
    path: Path,
    parquet: pq.ParquetFile,
    columns: Iterable[str] = (),
    leave_out: Iterable[str] = (),
    groups: Iterable[int] | None = None,
) -> Iterator[pa.RecordBatch]:
    """Rows of an open file in order, in batches of about `BATCH_BYTES`.

    `columns`: names of those to read, none for all; one that the file does not have is left out. `leave_out`: dotted
    names of nested fields that are not read. `groups`: numbers of the row groups to read, None for all.
    """
    read = _leaves(parquet, tuple(columns), tuple(leave_out))
    try:
        for group in range(parquet.num_row_groups) if groups is None else groups:
            metadata = parquet.metadata.row_group(group)
            columns_of_group = map(metadata.column, range(metadata.num_columns))
            chosen = [column for column in columns_of_group if column.path_in_schema in read]
            row_bytes = max(1, sum(column.total_uncompressed_size for column in chosen) // max(1, metadata.num_rows))
            rows = min(BATCH_ROWS, BATCH_BYTES // row_bytes, MOST_BATCH_BYTES // max(1, _largest_value(chosen)))
            rows = max(1, rows)
            yield from parquet.iter_batches(batch_size=rows, row_groups=[group], columns=read, use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise unreadable(path, error) from error


def _leaves(parquet: pq.ParquetFile, columns: tuple[str, ...], leave_out: tuple[str, ...]) -> list[str]:
    """Paths of the leaf columns that are read."""
    paths = [parquet.schema.column(index).path for index in range(len(parquet.schema))]
    wanted = [path for path in paths if not columns or _is_within(path, columns)]
    return [path for path in wanted if not _is_within(path, leave_out)]


def _is_within(path: str, names: tuple[str, ...]) -> bool:
    return any(path == name or path.startswith(f"{name}.") for name in names)


def _largest_value(columns: Iterable[pq.ColumnChunkMetaData]) -> int:
    """Bound of the bytes of a value that is stored once for many rows: those of its dictionary."""
    found = [column for column in columns if column.has_dictionary_page]
    return max((column.data_page_offset - (column.dictionary_page_offset or 0) for column in found), default=0)


class GroupWriter:
    """Writes a parquet file row group by row group; the file appears whole when the block ends, or not at all.

    Raises UserError where the disk does not take it.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._path, self._schema = path, schema
        self._partial = path.with_suffix(".partial")
        self._tables: list[pa.Table] = []
        self._bytes = self._rows = 0

    def __enter__(self) -> GroupWriter:
        with self._disk_errors():
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pq.ParquetWriter(self._partial, self._schema)
        return self

    def add(self, table: pa.Table) -> None:
        """Adds rows, which are written once a row group of them is there."""
        for start in range(0, table.num_rows, BATCH_ROWS):
            piece = table.slice(start, BATCH_ROWS)
            if self._rows and (self._bytes + piece.nbytes > GROUP_BYTES or self._rows >= GROUP_ROWS):
                self.flush()
            self._tables.append(piece)
            self._bytes, self._rows = self._bytes + piece.nbytes, self._rows + piece.num_rows

    def flush(self) -> None:
        """Writes the rows in hand as a row group, if there are any."""
        if not self._rows:
            return
        with self._disk_errors():
            self._writer.write_table(pa.concat_tables(self._tables), row_group_size=max(1, self._rows))
        self._tables, self._bytes, self._rows = [], 0, 0

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        try:
            if kind is None:
                self.flush()
                with self._disk_errors():
                    self._writer.close()
                    put_in_place(self._partial, self._path)
        finally:
            with contextlib.suppress(OSError):
                self._writer.close()
            with contextlib.suppress(OSError):
                self._partial.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _disk_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f"cannot write {self._path}: {error.strerror or error}; free some space or choose another folder"
            ) from error


def write_rows(path: str | Path, rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> None:
    """Writes a parquet file from rows as they come: either the whole file appears or none.

    Raises UserError where the disk does not take it.
    """
    with GroupWriter(Path(path), schema) as writer:
        remaining = iter(rows)
        while held := list(itertools.islice(remaining, 16)):
            writer.add(pa.Table.from_pylist(held, schema=schema))
