"""Record of one try at one sample of an item, as a line of JSON."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Protocol, TypeVar

import msgspec

from codedance_verl.trajectories.schema import encodable

VERSION = 1
"""Of the lines that are written. It rises when a field changes its meaning, not when one is added."""


class Asked(Protocol):
    """What the records need of an item; `tasks.item.Item` has it. Ids are unique in a benchmark."""

    @property
    def id(self) -> str: ...
    @property
    def sha256(self) -> str: ...


class Status(StrEnum):
    """Result of a try. All but the first are failures, which count as wrong and can be asked again."""

    ANSWERED = "answered"
    ENDPOINT_FAILURE = "endpoint_failure"
    SANDBOX_FAULT = "sandbox_fault"
    IMAGE_UNREADABLE = "image_unreadable"
    JUDGE_FAILURE = "judge_failure"


def plain_id(item: Asked) -> str:
    """Id of an item as its records have it: half a surrogate pair becomes `?`."""
    return item.id.encode("utf-8", "replace").decode()


FAILURES = frozenset(Status) - {Status.ANSWERED}


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One try.

    Attributes:
        key: `Key.digest` of the settings it was made with.
        item, item_sha256: id and digest of the item.
        sample: number of the reply, from 0.
        attempt: number of the try, from 0; a later one takes the place of an earlier one.
        status: what came of it; `reason` says why, for a failure.
        data: what the evaluation keeps, such as the reply or a verdict; any JSON value.
        written_at: Unix time in seconds, of the writer's clock.
    """

    version: int = VERSION
    key: str
    item: str
    item_sha256: str
    sample: Annotated[int, msgspec.Meta(ge=0)]
    attempt: Annotated[int, msgspec.Meta(ge=0)] = 0
    status: Status
    reason: str = ""
    data: Any = None
    written_at: float = 0.0


class Head(msgspec.Struct, frozen=True):
    """Fields of a record that an index holds; the data is passed over unread."""

    key: str
    item: str
    item_sha256: str
    sample: Annotated[int, msgspec.Meta(ge=0)]
    status: Status
    attempt: Annotated[int, msgspec.Meta(ge=0)] = 0
    version: int = VERSION
    written_at: float = 0.0


_Kind = TypeVar("_Kind", Record, Head)

_records, _heads = msgspec.json.Decoder(Record), msgspec.json.Decoder(Head)


def encode(record: Record) -> bytes:
    """The line of a record, newline included; half a surrogate pair in a text becomes `?`."""
    try:
        return msgspec.json.encode(record) + b"\n"
    except UnicodeEncodeError:  # only then: this copies the whole record, and replies are long
        return msgspec.json.encode(encodable(msgspec.to_builtins(record))) + b"\n"


def decode(line: bytes) -> Record | None:
    """The record of a line; None where it is broken or of a newer version."""
    return _decoded(_records, line)


def decode_head(line: bytes) -> Head | None:
    """The record of a line without its data; None as by `decode`."""
    return _decoded(_heads, line)


def _decoded(decoder: msgspec.json.Decoder[_Kind], line: bytes) -> _Kind | None:
    try:
        found = decoder.decode(line)
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
        return None
    return found if found.version <= VERSION else None
