"""Rows of a file in canonical form, in order, with the fault of each that has one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from codedance_verl.data.faults import BadRow
from codedance_verl.data.parquet import batches, open_parquet
from codedance_verl.data.rows import (
    DEFAULT_KEYS,
    NOT_KEPT,
    CanonicalRow,
    Columns,
    Keys,
    Kind,
    canonical_row,
    find_columns,
)
from codedance_verl.errors import UserError

_LEFT_OUT = tuple(f"extra_info.{name}" for name in NOT_KEPT)


@dataclass(frozen=True)
class ReadRow:
    """A row by its number in the file: what it means, or what is wrong with it."""

    number: int
    row: CanonicalRow | None
    fault: str = ""


@dataclass(frozen=True)
class RowFile:
    """A file that is read: where its columns are and how many rows it has."""

    path: Path
    columns: Columns
    rows: int

    def batches(self) -> Iterator[list[ReadRow]]:
        """Its rows, some megabytes at a time. Raises UserError where the file turns out to be damaged."""
        number = 0
        for batch in batches(self.path, open_parquet(self.path), self.columns.read, _LEFT_OUT):
            read = []
            for row in batch.to_pylist():
                try:
                    read.append(ReadRow(number, canonical_row(row, self.columns, self.path.parent)))
                except BadRow as fault:
                    read.append(ReadRow(number, None, str(fault)))
                number += 1
            yield read

    def read(self) -> Iterator[ReadRow]:
        """Its rows one by one."""
        for batch in self.batches():
            yield from batch


def open_rows(path: str | Path, needs: Kind | None = None, keys: Keys = DEFAULT_KEYS) -> RowFile:
    """The file, opened. Raises UserError: it cannot be read, holds the other kind, or a key names no column."""
    path = Path(path)
    parquet = open_parquet(path)
    columns = find_columns(path, parquet.schema_arrow.names, needs, keys)
    return RowFile(path, columns, parquet.metadata.num_rows)


def fault_line(path: Path, number: int, fault: str) -> str:
    """The line that reports a bad row."""
    return f"{path.name} row {number}: {fault}"


def refusal(line: str) -> UserError:
    """The error that ends a run at a bad row."""
    return UserError(f"{line}; fix or drop the row, or set skip_bad_records=true")
