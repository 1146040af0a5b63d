"""Plain JSON for user functions and logs: records without images and other bytes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

MAX_TEXT_CHARS = 20_000
_MAX_DEPTH = 20
_LEFT_OUT = object()


def plain_extra_info(value: Mapping[Any, Any]) -> dict[str, Any]:
    """Converts the `extra_info` of a record to JSON types.

    Arrays and tuples become lists, numpy's scalars Python's, NaN and infinities null. Left out, in lists too: bytes,
    images, texts beyond 20,000 characters (an image in base64) and whatever else JSON has not.
    """
    found = _plain(value, 0)
    return found if isinstance(found, dict) else {}


def _plain(value: Any, depth: int) -> Any:
    if depth > _MAX_DEPTH:
        return _LEFT_OUT
    if type(value).__module__ == "numpy" and hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, str):
        return value if len(value) <= MAX_TEXT_CHARS else _LEFT_OUT
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        items = {str(key): _plain(item, depth + 1) for key, item in value.items()}
        return {key: item for key, item in items.items() if item is not _LEFT_OUT}
    if isinstance(value, list | tuple):
        return [item for item in (_plain(item, depth + 1) for item in value) if item is not _LEFT_OUT]
    return _LEFT_OUT
