"""Pieces of files: neighbouring row groups of at most 64 MiB and 20,000 rows, which one process reads at a time."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codedance_verl.data.fields import BadRow
from codedance_verl.data.json_lines import json_lines
from codedance_verl.data.parquet import GROUP_BYTES, batches, open_parquet
from codedance_verl.data.reading import ReadRow, open_rows, python_rows
from codedance_verl.errors import UserError
from codedance_verl.tasks.rows import rows as rows_of_file

PIECE_BYTES = 64 << 20
"""Uncompressed bytes of the row groups of a piece, at most, but for a single larger group."""

PIECE_ROWS = 20_000
"""Rows of a piece, at most, but for a single larger group: rows that say the same take few bytes in a file."""

JSON = (".json", ".jsonl")


@dataclass(frozen=True)
class Piece:
    """Part of a file: `rows` rows from number `first_row` on, which lie in these row groups.

    A JSON file is one piece without groups, and its number of rows is 0 until it is read.
    """

    path: Path
    groups: tuple[int, ...] = ()
    first_row: int = 0
    rows: int = 0


def pieces_of(files: Sequence[Path]) -> tuple[Piece, ...]:
    """Pieces of all files in order. Raises UserError where one cannot be read or holds no row."""
    return tuple(piece for file in files for piece in _pieces(file))


def giant_groups(files: Sequence[Path]) -> Iterator[str]:
    """Yields a line with the cure for each file that has a row group of more than 64 MiB."""
    for file in files:
        if file.suffix.lower() in JSON:
            continue
        metadata = open_parquet(file).metadata
        sizes = [metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups)]
        if sizes and (largest := max(sizes)) > GROUP_BYTES:
            count = sum(size > GROUP_BYTES for size in sizes)
            yield (
                f"{file.name}: row group {sizes.index(largest)} has {largest >> 20} MiB"
                f"{f', {count} have more than {GROUP_BYTES >> 20}' if count > 1 else ''}: reading it may take as much "
                "memory; `codedance data sample FILE --out NEW` writes it once in small row groups, --workers 1 reads "
                "one group at a time"
            )


def raw_rows(piece: Piece, columns: Sequence[str] = ()) -> Iterator[tuple[int, dict[str, Any] | BadRow]]:
    """Rows of a piece with their numbers, a fault in place of one that cannot be read.

    `columns`: dotted names of those that are read of a parquet file, none for all. Others may hold further images.
    """
    if piece.path.suffix.lower() == ".jsonl":
        yield from json_lines(piece.path)
    elif piece.path.suffix.lower() == ".json":
        yield from ((row.number, dict(row.values)) for row in rows_of_file(piece.path))
    else:
        read = batches(piece.path, open_parquet(piece.path), columns, groups=piece.groups)
        yield from enumerate((row for batch in read for row in python_rows(batch)), piece.first_row)


def canonical_rows(piece: Piece) -> Iterator[ReadRow]:
    """Rows of a piece in the form that training reads."""
    file = open_rows(piece.path)
    return itertools.chain.from_iterable(file.batches(piece.groups, piece.first_row))


def _pieces(file: Path) -> Iterator[Piece]:
    if file.suffix.lower() in JSON:
        if not file.is_file():
            raise UserError(f"no data file at {file}; name a file that exists")
        yield Piece(file)
        return
    metadata = open_parquet(file).metadata
    if not metadata.num_rows:
        raise UserError(f"{file} holds no row; make or download it again")
    held, held_bytes, held_rows, first = list[int](), 0, 0, 0
    for group in range(metadata.num_row_groups):
        found = metadata.row_group(group)
        bytes_then, rows_then = held_bytes + found.total_byte_size, held_rows + found.num_rows
        if held and (bytes_then > PIECE_BYTES or rows_then > PIECE_ROWS):
            yield Piece(file, tuple(held), first, held_rows)
            held, held_bytes, held_rows, first = [], 0, 0, first + held_rows
        held.append(group)
        held_bytes, held_rows = held_bytes + found.total_byte_size, held_rows + found.num_rows
    yield Piece(file, tuple(held), first, held_rows)
