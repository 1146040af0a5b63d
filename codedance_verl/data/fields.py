"""Fields of a row in the forms of different writers: messages, image references, ground truths.

Messages are lists of {role, content}, JSON text, plain text or lists of parts. In the canonical form a content is text
with one `<image>` for each image; `<video>` and `<audio>` are words.

A reference is encoded bytes, a path, a `data:` address, or a mapping that holds one of them under `bytes`, `image`,
`path`, `image_url` or `url`. Paths are relative to the folder of the data file.

A ground truth in text is taken as it is (grading strips what marks it as an answer), numbers and booleans become text,
a list of them means any of them. Mappings, nested lists and what is empty are refused.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from codedance_verl.grading.rules.alternatives import encode_alternatives
from codedance_verl.types import IMAGE_PLACEHOLDER

# An encoded image, or the absolute path of its file.
Source = bytes | Path

# Keys of a mapping that may hold the image, the first one with a value counts.
KEYS = ("bytes", "image", "path", "image_url", "url")

MAX_FILE_BYTES = 256 << 20
"""Bytes of an image file, at most."""

_FILE = "file://"
_SHOWN_CHARS = 120

_OTHER_MEDIA = ("video", "video_url", "audio", "audio_url", "input_audio")
_TRUTH = "reward_model.ground_truth"


class BadRow(Exception):
    """Fault of a row, in words, without its file and number."""


@dataclass(frozen=True)
class Message:
    role: str
    content: str


def messages_of(value: Any, name: str) -> tuple[tuple[Message, ...], tuple[Any, ...]]:
    """Messages of a column's value, and the image references that stand in lists of parts, in order.

    Raises BadRow: there is no user message, or something is neither a message nor text.
    """
    messages: list[Message] = []
    references: list[Any] = []
    for index, message in enumerate(_as_list(value, name)):
        where = f"{name}[{index}]"
        if not isinstance(message, Mapping):
            raise BadRow(f"{where} is not a message with role and content")
        role = message.get("role")
        if not isinstance(role, str) or not role:
            raise BadRow(f"{where}.role is missing or not text")
        content = _content(message.get("content"), f"{where}.content", references)
        check_text(content, f"{where}.content")
        messages.append(Message(role, content))
    if not any(message.role == "user" for message in messages):
        raise BadRow(f"{name} has no user message")
    return tuple(messages), tuple(references)


def check_text(value: Any, where: str) -> None:
    """Refuses half of a surrogate pair in a text, or in any text of a list or mapping, keys included.

    Such text cannot be encoded as UTF-8, and would end a run where a log is written. Raises BadRow.
    """
    if isinstance(value, str):
        if not value.isascii() and any("\ud800" <= sign <= "\udfff" for sign in value):
            raise BadRow(f"{where} holds half of a surrogate pair, which is no text")
    elif isinstance(value, Mapping):
        for key, item in value.items():
            check_text(key, f"a key of {where}")
            check_text(item, f"{where}.{key}")
    elif isinstance(value, list | tuple):
        for item in value:
            check_text(item, where)


def _as_list(value: Any, name: str) -> list[Any]:
    if value is None or value == "":
        raise BadRow(f"{name} is missing")
    if isinstance(value, str):
        value = _messages_in(value)
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, list):
        raise BadRow(f"{name} is not a list")
    return value


def _messages_in(text: str) -> Any:
    """Messages in JSON; any other text is one user message."""
    if text.lstrip().startswith(("[", "{")):
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            found = None
        if _are_messages(found):
            return found
    return [{"role": "user", "content": text}]


def _are_messages(found: Any) -> bool:
    items = found if isinstance(found, list) else [found]
    return bool(items) and all(isinstance(item, Mapping) and "role" in item for item in items)


def _content(value: Any, where: str, references: list[Any]) -> str:
    if isinstance(value, str) and value:
        return value
    if isinstance(value, list) and value:
        return "".join(_part(part, f"{where}[{index}]", references) for index, part in enumerate(value))
    raise BadRow(f"{where} is missing or not text")


def _part(part: Any, where: str, references: list[Any]) -> str:
    if isinstance(part, str):
        return part
    if not isinstance(part, Mapping):
        raise BadRow(f"{where} is neither text nor a part with a type")
    kind = part.get("type") or ("text" if part.get("text") is not None else "image")
    if kind in _OTHER_MEDIA:
        raise BadRow(f"{where} is {kind}, which this environment does not take")
    if kind == "text":
        text = part.get("text")
        if not isinstance(text, str):
            raise BadRow(f"{where}.text is missing or not text")
        return text
    if kind not in ("image", "image_url", "input_image"):
        raise BadRow(f"{where} has the unknown type {kind!r}")
    if any(part.get(key) for key in KEYS):
        references.append({key: part.get(key) for key in KEYS})
    return IMAGE_PLACEHOLDER


# ---- images ----


def sources_of(value: Any, name: str, folder: Path) -> tuple[Source, ...]:
    """Images of a column's value: a list of references, one reference alone, or None for no image.

    Raises BadRow at the first reference that cannot be understood; files are not looked for.
    """
    if value is None:
        return ()
    if not isinstance(value, list) or _is_byte_list(value):
        return (source_of(value, name, folder),)
    return tuple(source_of(item, f"{name}[{index}]", folder) for index, item in enumerate(value))


def source_of(value: Any, where: str, folder: Path) -> Source:
    """Image that a reference means. Raises BadRow where it means none."""
    if isinstance(value, Mapping):
        value = next((value[key] for key in KEYS if _has_value(value.get(key))), None)
        if isinstance(value, Mapping):
            return source_of(value, where, folder)
    while isinstance(value, list) and len(value) == 1 and not _is_byte_list(value):
        return source_of(value[0], where, folder)
    if isinstance(value, list) and _is_byte_list(value):
        value = bytes(value)
    if isinstance(value, bytes | bytearray | memoryview) and value:
        return bytes(value)
    if isinstance(value, str) and value:
        return _source_in(value, where, folder)
    raise BadRow(f'{where} has neither "bytes" nor "path"')


def read_source(source: Source, where: str) -> bytes:
    """Encoded image. Raises BadRow where its file cannot be read, is no regular one or has more than 256 MiB."""
    if isinstance(source, bytes):
        return source
    try:
        found = source.stat()  # before it is opened: to open a pipe may take for ever
        if not stat.S_ISREG(found.st_mode):
            raise ValueError("it is no regular file")
        if found.st_size > MAX_FILE_BYTES:
            raise ValueError(f"it has {found.st_size >> 20} MiB; an image may have {MAX_FILE_BYTES >> 20}")
        return source.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        name = _shortened(str(source))
        raise BadRow(
            f"{where} names the file {name}, which cannot be read ({reason}); paths are relative to the data file"
        ) from None


def _source_in(text: str, where: str, folder: Path) -> Source:
    scheme = text.split(":", 1)[0].lower() if ":" in text[:12] else ""
    if scheme == "data":
        return _data_address_in(text, where)
    if scheme in ("http", "https", "s3", "gs", "hdfs"):
        raise BadRow(f"{where} is the address {_shortened(text)}; download it and name the file")
    if scheme == "file" and text.lower().startswith(_FILE):
        return _file_address_in(text[len(_FILE) :], folder)
    return folder.absolute() / text


def _file_address_in(rest: str, folder: Path) -> Path:
    """File of a `file://` address, whose writer may or may not have escaped spaces."""
    rest = rest.removeprefix("localhost") if rest.startswith("localhost/") else rest
    plain = folder.absolute() / rest
    there = os.path.exists(plain)  # noqa: PTH110  # Path.exists raises where a name is too long
    return plain if there else folder.absolute() / unquote(rest)


def _data_address_in(text: str, where: str) -> bytes:
    head, comma, body = text.partition(",")
    if not comma or not head.lower().endswith(";base64"):
        raise BadRow(f"{where} is a data: address without base64")
    try:
        return base64.b64decode("".join(body.split()), validate=True)
    except (binascii.Error, ValueError):
        raise BadRow(f"{where} is a data: address whose base64 is damaged") from None


def _has_value(value: Any) -> bool:
    return value is not None and (not isinstance(value, str | bytes | list) or len(value) > 0)


def _is_byte_list(value: list[Any]) -> bool:
    """True if a list is a file byte by byte, as arrays of uint8 are stored."""
    return len(value) > 8 and _are_bytes(value[:8]) and _are_bytes(value)  # a list of paths is seen by its first items


def _are_bytes(value: list[Any]) -> bool:
    return all(isinstance(item, int) and 0 <= item < 256 for item in value)


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…"


# ---- ground truths ----


def truth_of(value: Any) -> str:
    """Ground truth as text; alternatives by `encode_alternatives`. Raises BadRow where there is none."""
    if isinstance(value, list | tuple):
        texts = [_truth_text(item, f"{_TRUTH}[{index}]") for index, item in enumerate(value)]
        if not texts:
            raise BadRow(f"{_TRUTH} is missing or empty: a list without an item")
        try:
            return encode_alternatives(texts)
        except ValueError as error:
            raise BadRow(f"{_TRUTH}: {error}") from None
    return _truth_text(value, _TRUTH)


def _truth_text(value: Any, name: str) -> str:
    if isinstance(value, Mapping):
        raise BadRow(f"{name} is a mapping; give text, a number, or a list of texts of which any is right")
    if isinstance(value, list | tuple | bytes):
        raise BadRow(f"{name} is a {type(value).__name__}; give text, a number, or a list of texts")
    if value is None or (isinstance(value, float) and not math.isfinite(value)) or _is_blank(str(value)):
        raise BadRow(f"{name} is missing or empty")
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))  # pandas makes whole numbers floats where a row has none
    if isinstance(value, str | bool | int | float | Decimal | date | datetime):
        return str(value)
    raise BadRow(f"{name} is a {type(value).__name__}; give text, a number, or a list of texts")


def _is_blank(text: str) -> bool:
    """True if nothing is left without the tags that mark an answer."""
    return not re.sub(r"</?answer>", "", text).strip()
