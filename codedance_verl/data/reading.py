"""Rows of a file in canonical form, in order, with the fault of each that has one."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from codedance_verl.data.fields import BadRow, Source
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
    """A row by its number in the file, in canonical form or with its fault."""

    number: int
    row: CanonicalRow[Source] | None
    fault: str = ""


# Key in the metadata of a copy, so that its rows keep the numbers, and its images the folder, of the original.
_ORIGIN = b"codedance.origin"


@dataclass(frozen=True)
class Origin:
    """File that rows come from, and the numbers of its rows that a copy of it does not have."""

    path: Path
    left_out: frozenset[int] = frozenset()

    def noted_in(self, schema: pa.Schema) -> pa.Schema:
        """Schema of a copy."""
        note = json.dumps([str(self.path), sorted(self.left_out)]).encode()
        return schema.with_metadata({**(schema.metadata or {}), _ORIGIN: note})

    def numbers(self) -> Iterator[int]:
        """Numbers in the origin of the rows that a copy has, in order."""
        return (number for number in itertools.count() if number not in self.left_out)

    @classmethod
    def of(cls, path: Path, schema: pa.Schema) -> Origin:
        """Origin of a file: the one that it is a copy of, or itself."""
        if note := (schema.metadata or {}).get(_ORIGIN):
            name, left_out = json.loads(note)
            return cls(Path(name), frozenset(left_out))
        return cls(path)


@dataclass(frozen=True)
class RowFile:
    """A file that is read, with its columns, its number of rows and its origin."""

    path: Path
    columns: Columns
    rows: int
    origin: Origin

    def batches(self, groups: Iterable[int] | None = None, first_row: int = 0) -> Iterator[list[ReadRow]]:
        """Rows, some megabytes at a time, of all row groups or of `groups`, which begin with row `first_row`.

        Raises UserError where the file turns out to be damaged.
        """
        numbers = itertools.islice(self.origin.numbers(), first_row, None)
        for batch in batches(self.path, open_parquet(self.path), self.columns.read, _LEFT_OUT, groups):
            yield [self._read(number, row) for row, number in zip(python_rows(batch), numbers, strict=False)]

    def _read(self, number: int, row: dict[str, Any] | BadRow) -> ReadRow:
        try:
            if isinstance(row, BadRow):
                raise row
            return ReadRow(number, canonical_row(row, self.columns, self.origin.path.parent))
        except BadRow as fault:
            return ReadRow(number, None, str(fault))

    def read(self) -> Iterator[ReadRow]:
        """Rows one by one."""
        return itertools.chain.from_iterable(self.batches())


def open_rows(path: str | Path, needs: Kind | None = None, keys: Keys = DEFAULT_KEYS) -> RowFile:
    """Opens the file. Raises UserError: it cannot be read, holds the other kind, or a key names no column."""
    path = Path(path)
    parquet = open_parquet(path)
    columns = find_columns(path, parquet.schema_arrow.names, needs, keys)
    return RowFile(path, columns, parquet.metadata.num_rows, Origin.of(path, parquet.schema_arrow))


def python_rows(batch: pa.RecordBatch) -> list[dict[str, Any] | BadRow]:
    """Rows of a batch, a fault in the place of each that Python has no values for."""
    try:
        return list(batch.to_pylist())
    except (ValueError, OverflowError) as error:  # text that is no UTF-8, a date beyond the year 9999
        # the batch is read again row by row, so that one value costs one row
        if batch.num_rows == 1:
            return [BadRow(f"a value of it cannot be read ({error})")]
        return [row for index in range(batch.num_rows) for row in python_rows(batch.slice(index, 1))]


def fault_line(path: Path, number: int, fault: str) -> str:
    """Line that reports a bad row."""
    return f"{path.name} row {number}: {fault}"


def refusal(line: str, kind: Kind) -> UserError:
    """Error that ends a run at a bad row. SFT leaves none out."""
    return UserError(f"{line}; fix or drop the row" + ", or set skip_bad_records=true" * (kind is Kind.QUESTIONS))
