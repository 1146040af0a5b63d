"""Reads lines of trajectories while they are being written: whole lines alone, whatever is in them.

Two kinds are understood: those of `rollout/trajectory_log.py`, older ones with fewer fields included, and those that
verl writes to `trainer.rollout_data_dir` and `trainer.validation_data_dir` (`<step>.jsonl` with `input`, `output`,
`gts`, `score`, `step` and `uid`). Nothing in a line is trusted: a field of the wrong type counts as absent.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_LINE_BYTES = 256 << 20
"""A longer line is skipped and counted as broken."""


@dataclass(frozen=True)
class Line:
    """One line of a file: where it starts, its bytes with the newline, and what it holds; None where it is broken."""

    offset: int
    length: int
    record: dict[str, Any] | None


def whole_lines(path: Path, offset: int = 0) -> Iterator[Line]:
    """Lines from `offset` on that end in a newline; a half one at the end is left for the next time. Blank ones are
    passed over, so the end of the last line is where to go on."""
    with path.open("rb") as stream:
        stream.seek(offset)
        while True:
            line = stream.readline(MAX_LINE_BYTES)
            length = len(line)
            broken = length == MAX_LINE_BYTES and not line.endswith(b"\n")
            while broken and (rest := stream.readline(1 << 20)):
                length += len(rest)
                line = rest
                if rest.endswith(b"\n"):
                    break
            if not line.endswith(b"\n"):
                return
            yield Line(offset, length, None if broken else decode(line))
            offset += length


def read_line(path: Path, offset: int, length: int) -> dict[str, Any] | None:
    """The record at a place that `whole_lines` gave; None where it is not there any more."""
    try:
        with path.open("rb") as stream:
            stream.seek(offset)
            return decode(stream.read(min(length, MAX_LINE_BYTES)))
    except OSError:
        return None


def decode(line: bytes) -> dict[str, Any] | None:
    """A line as a record of `rollout/trajectory_log.py`; bytes that are no UTF-8 become replacement characters."""
    try:
        record = json.loads(line.decode("utf-8", "replace"), strict=False)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict):
        return None
    if "turns" not in record and "output" in record:
        return _of_verl(record)
    return record if "turns" in record or "question" in record else None


def _of_verl(record: Mapping[str, Any]) -> dict[str, Any]:
    """verl's line in our fields. `uid` is `<group>_<rollout>_<output>`."""
    uid = text(record.get("uid"))
    parts = uid.rsplit("_", 2)
    split_up = len(parts) == 3 and parts[1].isdigit()
    score = number(record.get("score"))
    return {
        "step": record.get("step"),
        "group": parts[0] if split_up else uid,
        "sample": int(parts[1]) if split_up else 0,
        "record_id": text(record.get("index")) or text(record.get("input")),
        "question": text(record.get("input")),
        "ground_truth": text(record.get("gts")),
        "kind": text(record.get("data_source")),
        "turns": [{"text": text(record.get("output"))}],
        "reward": {"score": score, "accuracy": number(record.get("acc", record.get("accuracy")))},
        "written_by": "verl",
    }


def text(value: object) -> str:
    """A text, a number as one, and nothing for anything else; never with half a surrogate pair."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    return str(value).encode("utf-8", "replace").decode()


def number(value: object) -> float | None:
    """A finite number, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def whole(value: object) -> int:
    """A whole number that a database can hold, else 0."""
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**62 else 0


def mapping(value: object) -> Mapping[str, Any]:
    """A mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def items(value: object) -> list[Any]:
    """A list, else an empty one."""
    return value if isinstance(value, list) else []
