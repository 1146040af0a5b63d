"""Messages in the forms of different writers: lists of {role, content}, JSON text, plain text, lists of parts.

In the canonical form a content is text with one `<image>` for each image; `<video>` and `<audio>` are words.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from codedance_verl.data.faults import BadRow
from codedance_verl.data.references import KEYS
from codedance_verl.types import IMAGE_PLACEHOLDER

_OTHER_MEDIA = ("video", "video_url", "audio", "audio_url", "input_audio")


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
        # such text cannot be encoded as UTF-8, and would end a run where a log is written
        if not content.isascii() and any("\ud800" <= sign <= "\udfff" for sign in content):
            raise BadRow(f"{where}.content holds half of a surrogate pair, which is no text")
        messages.append(Message(role, content))
    if not any(message.role == "user" for message in messages):
        raise BadRow(f"{name} has no user message")
    return tuple(messages), tuple(references)


def _as_list(value: Any, name: str) -> list[Any]:
    if value is None or value == "":
        raise BadRow(f"{name} is missing")
    if isinstance(value, str):
        value = _from_text(value)
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, list):
        raise BadRow(f"{name} is not a list")
    return value


def _from_text(text: str) -> Any:
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
