"""Lines of trajectories while they are being written: whole lines alone, whatever is in them.

Two kinds are understood: those of `trajectories/schema.py`, older ones with fewer fields included, and those that verl
writes to `trainer.rollout_data_dir` and `trainer.validation_data_dir` (`<step>.jsonl` with `input`, `output`, `gts`,
`score`, `step` and `uid`). Nothing in a line is trusted: a field of the wrong type counts as absent.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codedance_verl.errors import UserError
from codedance_verl.trajectories import schema
from codedance_verl.trajectories.schema import MalformedRecord, TrajectoryRecord, repaired


@dataclass(frozen=True)
class Line:
    """One line of a file: where it starts, its bytes with the newline, and what it holds; None where it is broken."""

    offset: int
    length: int
    record: TrajectoryRecord | None


def whole_lines(path: Path, offset: int = 0) -> Iterator[Line]:
    """Lines from `offset` on that end in a newline; a half one at the end is left for the next time. Blank ones are
    passed over, so the end of the last line is where to continue."""
    for start, length, line in raw_lines(path, offset):
        yield Line(start, length, None if line is None else decode(line))


def raw_lines(path: Path, offset: int = 0) -> Iterator[tuple[int, int, bytes | None]]:
    """Offset, length and bytes, newline included, of the lines that `whole_lines` reads; None for one that is longer
    than `schema.MAX_LINE_BYTES`. Raises OSError."""
    limit = schema.MAX_LINE_BYTES
    with path.open("rb") as stream:
        stream.seek(offset)
        while True:
            line = stream.readline(limit)
            length = len(line)
            broken = length == limit and not line.endswith(b"\n")
            while broken and (rest := stream.readline(1 << 20)):
                length += len(rest)
                line = rest
                if rest.endswith(b"\n"):
                    break
            if not line.endswith(b"\n"):
                return
            yield offset, length, None if broken else line
            offset += length


def numbered_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Lines of a file by number from 1, the last one also where it lacks its newline.

    Raises:
        UserError: a line is longer than any rollout; names file and line.
        OSError: the file cannot be read.
    """
    limit = schema.MAX_LINE_BYTES
    with path.open("rb") as stream:
        for number, line in enumerate(iter(lambda: stream.readline(limit + 1), b""), start=1):
            if len(line) > limit:
                raise UserError(f"{path}:{number}: longer than {limit >> 20} MiB; this is not a rollout")
            yield number, line


def read_line(path: Path, offset: int, length: int) -> TrajectoryRecord | None:
    """The record at a place that `whole_lines` gave; None where it is not there any more."""
    try:
        with path.open("rb") as stream:
            stream.seek(offset)
            return decode(stream.read(min(length, schema.MAX_LINE_BYTES)))
    except OSError:
        return None


def decode(line: bytes) -> TrajectoryRecord | None:
    """A line of ours or of verl as a record, mended where it is damaged; None where it is no JSON or something else.

    Bytes that are no UTF-8 become replacement characters.
    """
    try:
        return schema.decode(line)
    except MalformedRecord:
        pass
    try:
        value = json.loads(line.decode("utf-8", "replace"), strict=False)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    if "turns" not in value and "output" in value:
        return repaired(_of_verl(value))
    return repaired(value) if "turns" in value or "question" in value else None


_MAX_DIGITS = 18
"""Of a rollout's number in verl's `uid`; Python refuses integers of thousands of digits."""


def _of_verl(value: Mapping[str, Any]) -> dict[str, Any]:
    """verl's line in our fields. `uid` is `<group>_<rollout>_<output>`."""
    uid = str(value.get("uid", ""))
    parts = uid.rsplit("_", 2)
    split_up = len(parts) == 3 and parts[1].isdecimal() and parts[1].isascii() and len(parts[1]) < _MAX_DIGITS
    return {
        "step": value.get("step"),
        "group": parts[0] if split_up else uid,
        "sample": int(parts[1]) if split_up else 0,
        "record_id": value.get("input") if value.get("index") in (None, "") else value["index"],
        "question": value.get("input"),
        "ground_truth": value.get("gts"),
        "kind": value.get("data_source"),
        "turns": [{"text": value.get("output")}],
        "reward": {"score": value.get("score"), "accuracy": value.get("acc", value.get("accuracy"))},
    }
