"""Image references in the forms of different writers, and their encoded bytes.

A reference is encoded bytes, a path, a `data:` address, or a mapping that holds one of them under `bytes`, `image`,
`path`, `image_url` or `url`. Paths are relative to the folder of the data file.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from codedance_verl.data.faults import BadRow

# An encoded image, or the absolute path of its file.
Source = bytes | Path

# Keys of a mapping that may hold the image, the first one with a value counts.
KEYS = ("bytes", "image", "path", "image_url", "url")

_FILE = "file://"
_SHOWN_CHARS = 120


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
        return _from_text(value, where, folder)
    raise BadRow(f'{where} has neither "bytes" nor "path"')


def read_source(source: Source, where: str) -> bytes:
    """Encoded image. Raises BadRow where its file cannot be read."""
    if isinstance(source, bytes):
        return source
    try:
        return source.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        name = _shortened(str(source))
        raise BadRow(
            f"{where} names the file {name}, which cannot be read ({reason}); paths are relative to the data file"
        ) from None


def _from_text(text: str, where: str, folder: Path) -> Source:
    scheme = text.split(":", 1)[0].lower() if ":" in text[:12] else ""
    if scheme == "data":
        return _from_data_address(text, where)
    if scheme in ("http", "https", "s3", "gs", "hdfs"):
        raise BadRow(f"{where} is the address {_shortened(text)}; download it and name the file")
    if scheme == "file" and text.lower().startswith(_FILE):
        return _from_file_address(text[len(_FILE) :], folder)
    return folder.absolute() / text


def _from_file_address(rest: str, folder: Path) -> Path:
    """File of a `file://` address, whose writer may or may not have escaped spaces."""
    rest = rest.removeprefix("localhost") if rest.startswith("localhost/") else rest
    plain = folder.absolute() / rest
    there = os.path.exists(plain)  # noqa: PTH110  # Path.exists raises where a name is too long
    return plain if there else folder.absolute() / unquote(rest)


def _from_data_address(text: str, where: str) -> bytes:
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
