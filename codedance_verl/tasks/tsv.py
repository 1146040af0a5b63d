"""Tab-separated files with base64 images, as VLMEvalKit and HR-Bench have them, in bounded memory.

The csv module reads no field of more than 131,072 characters unless a limit of the whole process is raised, and does
not say where in the file a record stands.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from codedance_verl.errors import UserError

# Bytes of a record, at most: an image of 8K is some megabytes.
MAX_RECORD_BYTES = 256 << 20

_TAB, _QUOTE = b"\t", b'"'


@dataclass(frozen=True)
class TsvRecord:
    """Record: its place in the file in bytes, and its cells."""

    start: int
    length: int
    cells: list[bytes]


def records(path: Path) -> Iterator[TsvRecord]:
    """Records in order, the header among them. Raises UserError: unreadable, or a record that never ends."""
    try:
        with path.open("rb") as file:
            start = 0
            while record := file.readline(MAX_RECORD_BYTES):
                while ends_open(record):  # quoted cells may hold line breaks
                    more = file.readline(MAX_RECORD_BYTES)
                    if not more or len(record) + len(more) > MAX_RECORD_BYTES:
                        raise UserError(f"{path}: the quoted cell that begins in the record at byte {start} has no end")
                    record += more
                yield TsvRecord(start, len(record), cells_of(record))
                start += len(record)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from None


def cells_of(record: bytes) -> list[bytes]:
    """Cells of a record. A cell that begins with a quote ends with one, and holds doubled ones for one."""
    record = record.removesuffix(b"\n").removesuffix(b"\r")
    if _QUOTE not in record:
        return record.split(_TAB)
    cells, at = [], 0
    while True:
        if record.startswith(_QUOTE, at):
            end = _closing_quote(record, at)
            cells.append(record[at + 1 : end].replace(b'""', _QUOTE))
            at = record.find(_TAB, end)
        else:
            end = record.find(_TAB, at)
            cells.append(record[at : len(record) if end < 0 else end])
            at = end
        if at < 0:
            return cells
        at += 1


def ends_open(record: bytes) -> bool:
    """True if the last cell begins with a quote that nothing closes."""
    at = 0
    while at >= 0:
        if record.startswith(_QUOTE, at):
            end = _closing_quote(record, at)
            if end >= len(record):
                return True
            at = end
        at = record.find(_TAB, at)
        at = at + 1 if at >= 0 else -1
    return False


def _closing_quote(record: bytes, opening: int) -> int:
    """Place of the quote that closes a cell; the length of the record where there is none."""
    at = opening + 1
    while (found := record.find(_QUOTE, at)) >= 0:
        if not record.startswith(_QUOTE, found + 1):
            return found
        at = found + 2
    return len(record)
