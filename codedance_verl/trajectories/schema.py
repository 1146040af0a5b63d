"""Record of one rollout as a line of the trajectory log: its fields, its version, and the only encoder and decoders.

Three forms are read: lines of this version, lines that were written before versions (`version` 0, the same fields), and
lines of verl (`trajectories/lines.py`). Rewards and errors are the records of `types.py` themselves.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import inspect

from codedance_verl.formats import DEFAULT_FORMAT
from codedance_verl.types import Branch, ExecutionError, ExecutionStatus, FinishReason, RewardTerms, Verdict

VERSION = 1
"""Of the lines that are written. It rises when a field changes its meaning, not when one is added."""

MAX_LINE_BYTES = 256 << 20
"""Longest line that is read; no rollout within the environment's limits comes near it."""

NO_STEP = -1
"""In place of a training step that a damaged line does not state."""

# SQLite, which indexes these, holds 64-bit integers.
_Whole = Annotated[int, msgspec.Meta(ge=-(2**62), le=2**62)]
_Type = TypeVar("_Type")


class MalformedRecord(ValueError):
    """A line that is no record; the message names the dotted field and what is wrong with it."""


class ImageRef(msgspec.Struct, frozen=True, omit_defaults=True):
    """Image of the log by the SHA-256 (hex) of its PNG; sides in pixels.

    `pixels_sha256`, of a question's image, is the hash of the whole image before it was made smaller.
    """

    sha256: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
    width: int
    height: int
    path: str = ""
    pixels_sha256: str | None = None

    def file(self, folder: Path) -> Path:
        """PNG below the log's folder. Built from the hash alone: a log is not trusted with paths."""
        return folder / "images" / f"{self.sha256}.png"


class ExecutionRecord(msgspec.Struct, frozen=True):
    """`types.Execution` with images by reference; seconds of run time and of waiting for a sandbox."""

    status: ExecutionStatus
    stdout: str
    error: ExecutionError | None
    images: tuple[ImageRef, ...]
    duration_s: float
    queue_s: float
    truncated: tuple[str, ...]

    @property
    def executed(self) -> bool:
        """False when the code was refused before it ran."""
        return self.status != ExecutionStatus.REJECTED

    @property
    def succeeded(self) -> bool:
        return self.status in (ExecutionStatus.OK, ExecutionStatus.NO_OUTPUT)


class TurnRecord(msgspec.Struct, frozen=True):
    """`types.Turn`: `observation` is the text that the model was shown, with `images_shown` images in it."""

    text: str
    code: str | None
    observation: str | None
    execution: ExecutionRecord | None
    tokens: int | None = None
    images_shown: int | None = None


class GradeRecord(msgspec.Struct, frozen=True, rename={"rule": "rung"}):
    """`types.Grade`; the rule stands under `rung`, as readers outside of this project expect."""

    verdict: Verdict
    rule: str
    evidence: str = ""

    @property
    def correct(self) -> bool:
        return self.verdict == Verdict.CORRECT


class Advantage(msgspec.Struct, frozen=True):
    """Advantages that a group has by itself; None where they rest on the whole batch, or there are none."""

    sequence: float | None = None
    turns: tuple[float | None, ...] | None = None


class Timing(msgspec.Struct, frozen=True, omit_defaults=True):
    """Wall seconds of one rollout by activity; None where the writer did not time it."""

    generate_s: float
    execute_s: float
    queue_s: float
    total_s: float
    observe_s: float | None = None
    grade_s: float | None = None


class TrajectoryRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One finished rollout. Fields with a default are missing in lines that older versions wrote."""

    version: int = 0
    step: _Whole
    split: str
    group: str
    sample: _Whole
    record_id: str
    data_source: str
    kind: str
    difficulty: str | None
    variant: str | None
    control: str | None = None
    format: str = DEFAULT_FORMAT
    question: str
    ground_truth: str
    extra_info: dict[str, Any] = {}
    input_images: tuple[ImageRef, ...]
    turns: tuple[TurnRecord, ...]
    finish: FinishReason
    answer: str | None
    style: str = ""
    grade: GradeRecord
    reward: RewardTerms
    advantage: Advantage | None = None
    timing: Timing
    written_at: float | None = None
    branch: Branch | None = None

    @property
    def executions(self) -> tuple[ExecutionRecord, ...]:
        return tuple(turn.execution for turn in self.turns if turn.execution is not None)


_MAX_REASON_CHARS = 200
_CHOICES = {"status": ExecutionStatus, "finish": FinishReason, "verdict": Verdict}
"""Enumerations by the fields that hold them: msgspec's messages do not list what is allowed."""

_decoder = msgspec.json.Decoder(TrajectoryRecord)


def encode(record: TrajectoryRecord) -> bytes:
    """The line of a record, newline included; half a surrogate pair in a text becomes `?`."""
    try:
        return msgspec.json.encode(record) + b"\n"
    except UnicodeEncodeError:
        plain = msgspec.to_builtins(record)
        return (json.dumps(plain, ensure_ascii=False) + "\n").encode("utf-8", "replace")


def decode(line: bytes) -> TrajectoryRecord:
    """The record of a line, every field checked.

    Raises:
        MalformedRecord: names the first field that is missing or does not fit, or a version that is newer than this.
    """
    try:
        record = _decoder.decode(line)
    except msgspec.ValidationError as error:
        _check_version(line)
        raise MalformedRecord(in_words(error)) from None
    except RecursionError:
        raise MalformedRecord("it is nested too deep") from None
    except ValueError:
        # Python's reader takes what msgspec's refuses and older writers wrote: NaN, half a surrogate pair.
        record = convert(encodable(loads(line)), TrajectoryRecord)
    if record.version > VERSION:
        _check_version(line)
    return record


def convert(value: Any, kind: type[_Type]) -> _Type:
    """A decoded JSON value as a record.

    Raises:
        MalformedRecord: names the first field that is missing or does not fit.
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise MalformedRecord(in_words(error)) from None


def loads(line: bytes, finite: bool = False) -> Any:
    """A line as a JSON value; `finite`: without NaN and infinity, which JSON does not have but Python reads.

    Raises:
        MalformedRecord: it is none.
    """
    try:
        return json.loads(line, parse_constant=_refuse_constant if finite else None)
    except (ValueError, RecursionError) as error:
        raise MalformedRecord(f"it is no JSON: {error}") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def encodable(value: Any) -> Any:
    """The JSON value with `?` for half surrogate pairs, which no file, page or table takes."""
    match value:
        case str():
            return value.encode("utf-8", "replace").decode()
        case list() | tuple():
            return [encodable(item) for item in value]
        case dict():
            return {encodable(name): encodable(item) for name, item in value.items()}
        case _:
            return value


def in_words(error: msgspec.ValidationError) -> str:
    """msgspec's message with the field in front: `turns[0].text: Expected ...`."""
    reason, _, path = str(error).rpartition(" - at ") if " - at " in str(error) else (str(error), "", "")
    reason = reason[:_MAX_REASON_CHARS]  # it may quote a value of any length
    field = path.strip("`").removeprefix("$").removeprefix(".")
    choices = _CHOICES.get(field.rpartition(".")[2], ())
    if choices and reason.startswith("Invalid enum value"):
        reason += f", must be one of {', '.join(choices)}"
    return f"{field}: {reason}" if field else reason


def repaired(value: Mapping[str, Any]) -> TrajectoryRecord:
    """The record of a line that was written by hand, by another version, or damaged: what does not fit is blank.

    A blank text is empty, a blank number 0 or NaN. A status, finish or verdict that is not known stays as text.
    """
    found: TrajectoryRecord = _repaired(_layout(), value)
    return found if isinstance(value.get("step"), int) else msgspec.structs.replace(found, step=NO_STEP)


@functools.cache
def _layout() -> inspect.Type:
    return inspect.type_info(TrajectoryRecord)


def _repaired(kind: inspect.Type, value: Any) -> Any:
    match kind:
        case inspect.StructType() | inspect.DataclassType():
            given = value if isinstance(value, dict) else {}
            # Defaults of a record are what older lines mean by leaving a field out.
            return kind.cls(
                **{
                    field.name: _repaired(field.type, given.get(field.encode_name))
                    for field in kind.fields
                    if field.required or given.get(field.encode_name) is not None
                }
            )
        case inspect.UnionType():  # of a type and None
            inner = next(item for item in kind.types if not isinstance(item, inspect.NoneType))
            return _repaired(inner, value) if _resembles(inner, value) else None
        case inspect.VarTupleType():
            return tuple(_repaired(kind.item_type, item) for item in value) if isinstance(value, list) else ()
        case inspect.DictType():
            return value if isinstance(value, dict) else {}
        case inspect.BoolType():
            return value is True
        case inspect.IntType():
            return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**62 else 0
        case inspect.FloatType():
            return _number(value)
        case inspect.StrType(pattern=str(pattern)):
            return value if isinstance(value, str) and re.search(pattern, value) else ""
        case _:
            return _text(value)


def _resembles(kind: inspect.Type, value: Any) -> bool:
    """False where an optional field is as good as absent."""
    match kind:
        case inspect.StructType() | inspect.DataclassType():
            return isinstance(value, dict)
        case inspect.VarTupleType():
            return isinstance(value, list)
        case inspect.IntType():
            return isinstance(value, int) and not isinstance(value, bool)
        case inspect.FloatType():
            return math.isfinite(_number(value))
        case _:
            return value is not None


def _number(value: Any) -> float:
    """A finite number, else NaN, which JSON cannot hold and SQLite stores as NULL."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        return float(value) if math.isfinite(value) else math.nan
    except OverflowError:
        return math.nan


def _text(value: Any) -> str:
    """A text, a number as one, and nothing for anything else; half a surrogate pair becomes `?`."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    try:
        found = str(value)
        found.encode()
    except UnicodeEncodeError:
        return found.encode("utf-8", "replace").decode()
    except ValueError:  # Python refuses to write integers of thousands of digits
        return ""
    return found


def _check_version(line: bytes) -> None:
    """Raises MalformedRecord for a line of a newer version, whose other faults say nothing."""
    value = loads(line)
    version = value.get("version", 0) if isinstance(value, dict) else 0
    if isinstance(version, int) and version > VERSION:
        raise MalformedRecord(f"its version is {version}, this code reads up to {VERSION}; update the code")
