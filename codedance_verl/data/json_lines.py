"""Reader of JSON lines, for published sets and benchmarks alike: line by line, with the fault of each that has one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from codedance_verl.data.fields import BadRow
from codedance_verl.errors import UserError

MOST_LINE_BYTES = 64 << 20
"""Bytes of a line, at most."""


def json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any] | BadRow]]:
    """Objects of a file with their numbers, from 0 and without blank lines, a fault in place of what is none.

    Raises UserError where the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(line for line in _lines(file) if line is None or line.strip()):
                yield number, _object(line)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); make or download it again") from None


def _lines(file: IO[bytes]) -> Iterator[bytes | None]:
    """Lines of a file, None for one that is too long to be held."""
    while line := file.readline(MOST_LINE_BYTES + 1):
        if len(line) <= MOST_LINE_BYTES:
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = file.readline(MOST_LINE_BYTES)
        yield None


def _object(line: bytes | None) -> dict[str, Any] | BadRow:
    if line is None:
        return BadRow(f"the line has more than {MOST_LINE_BYTES >> 20} MiB")
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        return BadRow(f"the line is no JSON ({error})")
    return found if isinstance(found, dict) else BadRow("the line is no JSON object")
