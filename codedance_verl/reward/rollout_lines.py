"""Reads rollouts for `codedance reward explain`: JSON lines, written by hand or by another system.

A line has `group`, `data_source`, `question`, `ground_truth`, `turns` [{`text`, `execution`: null or {`status`,
`stdout`, `images`}}] and `finish`. `format` names how calls are written (`formats/`), else it is taken from the
text; `style` says how the answer is graded (`grading/matchers.py`), `extra_info` is the record's own, for graders and
reward terms of the user's, and `grade` holds a verdict that was given already. Further keys are kept and ignored.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from codedance_verl.errors import UserError
from codedance_verl.formats import FORMATS, get_format
from codedance_verl.grading.matchers import RULE
from codedance_verl.types import Execution, ExecutionStatus, FinishReason, Grade, Trajectory, Turn, Verdict

MAX_LINE_BYTES = 64 << 20
MAX_TURNS = 10_000

_Enum = TypeVar("_Enum", bound=StrEnum)


@dataclass(frozen=True)
class RolloutLine:
    """One line: its number in the file from 1, the record as it was, its group as text, the typed trajectory, and the
    verdict that the line brings, if it does."""

    number: int
    record: dict[str, Any]
    group: str
    trajectory: Trajectory
    grade: Grade | None = None


class _Malformed(Exception):
    """What is wrong with a line, in words."""


def read_rollouts(path: Path) -> list[RolloutLine]:
    """All rollouts of a file, blank lines left out.

    Raises:
        UserError: the file cannot be read, holds no rollout, or a line is none; names file and line.
    """
    lines = []
    try:
        with path.open("rb") as stream:
            for number, line in enumerate(iter(lambda: stream.readline(MAX_LINE_BYTES + 1), b""), start=1):
                if line.strip():
                    lines.append(_read(line, number, path))
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); give a file of rollouts, one JSON a line"
        ) from None
    if not lines:
        raise UserError(f"{path}: holds no rollout; give one JSON object a line")
    return lines


def _read(line: bytes, number: int, path: Path) -> RolloutLine:
    try:
        if len(line) > MAX_LINE_BYTES:
            raise _Malformed(f"it is longer than {MAX_LINE_BYTES >> 20} MiB")
        record = json.loads(line, parse_constant=_no_constant)
        if not isinstance(record, dict):
            raise _Malformed(f"it is {_kind(record)}, not an object")
        return RolloutLine(number, record, _group(record), _trajectory(record, number), _grade(record))
    except _Malformed as error:
        reason = str(error)
    except (ValueError, RecursionError) as error:
        reason = f"it is no JSON: {error}"
    raise UserError(f"{path}:{number}: not a rollout: {reason[:300]}; mend or delete the line")


def _no_constant(name: str) -> float:
    raise _Malformed(f"{name} is no JSON number")


def _group(record: Mapping[str, Any]) -> str:
    value = _field(record, "group", (str, int))
    return value if isinstance(value, str) else f"{value:d}"


def _trajectory(record: Mapping[str, Any], number: int) -> Trajectory:
    items = _field(record, "turns", (list,))
    if not 0 < len(items) <= MAX_TURNS:
        raise _Malformed(f"turns has {len(items)} items, it must have 1 to {MAX_TURNS}")
    texts = [_field(item, "text", (str,), f"turns[{index}].") for index, item in enumerate(items)]
    written = _format(record, texts)
    parsed = [get_format(written).parse(text) for text in texts]
    turns = tuple(
        Turn(text, 2 * index, 2 * index + 1, found.code, _execution(item, f"turns[{index}]."))
        for index, (item, text, found) in enumerate(zip(items, texts, parsed, strict=True))
    )
    truth = _field(record, "ground_truth", (str, int, float))
    return Trajectory(
        record_id=str(record.get("record_id", number)),
        data_source=_field(record, "data_source", (str,)),
        question=_field(record, "question", (str,)),
        ground_truth=truth if isinstance(truth, str) else f"{truth}",
        turns=turns,
        finish=_choice(record, "finish", FinishReason),
        answer=parsed[-1].answer,
        format=written,
        style=_optional(record, "style") or RULE,
        extra_info=_field(record, "extra_info", (dict,)) if record.get("extra_info") is not None else {},
    )


def _grade(record: Mapping[str, Any]) -> Grade | None:
    value = record.get("grade")
    if value is None:
        return None
    verdict = _choice(value, "verdict", Verdict, "grade.")
    return Grade(verdict, _optional(value, "rung", "grade."), _optional(value, "evidence", "grade."))


def _format(record: Mapping[str, Any], texts: list[str]) -> str:
    """The format that the line names, else the first whose calls are in the text, else the default."""
    if name := _optional(record, "format"):
        if name not in FORMATS:
            raise _Malformed(f"format {name[:80]!r} is none of {', '.join(FORMATS)}")
        return name
    for name, known in FORMATS.items():
        if any(known.parse(text).code is not None for text in texts):
            return name
    return next(iter(FORMATS))


def _execution(turn: Mapping[str, Any], where: str) -> Execution | None:
    if "execution" not in turn:
        raise _Malformed(f"{where}execution is missing")
    value = turn["execution"]
    if value is None:
        return None
    if not isinstance(value, dict):
        raise _Malformed(f"{where}execution is {_kind(value)}, not an object or null")
    inside = f"{where}execution."
    stdout = _optional(value, "stdout", inside)
    if value.get("images") is not None:
        _field(value, "images", (list, int), inside)
    return Execution(_choice(value, "status", ExecutionStatus, inside), stdout)


def _field(record: Any, name: str, kinds: tuple[type, ...], where: str = "") -> Any:
    if not isinstance(record, Mapping):
        raise _Malformed(f"{where.rstrip('.') or 'it'} is {_kind(record)}, not an object")
    if name not in record:
        raise _Malformed(f"{where}{name} is missing")
    value = record[name]
    if not isinstance(value, kinds) or isinstance(value, bool):
        raise _Malformed(f"{where}{name} is {_kind(value)}, not {' or '.join(_NAMES[kind] for kind in kinds)}")
    return value


def _optional(record: Mapping[str, Any], name: str, where: str = "") -> str:
    """A text that may be missing or null; then it is empty."""
    return _field(record, name, (str,), where) if record.get(name) is not None else ""


def _choice(record: Any, name: str, choices: type[_Enum], where: str = "") -> _Enum:
    value = _field(record, name, (str,), where)
    if value not in list(choices):
        raise _Malformed(f"{where}{name} {value[:80]!r} is none of {', '.join(choices)}")
    return choices(value)


_NAMES: dict[type, str] = {str: "a text", int: "a whole number", float: "a number", list: "a list", dict: "an object"}


def _kind(value: object) -> str:
    return "null" if value is None else "true or false" if isinstance(value, bool) else _NAMES[type(value)]
