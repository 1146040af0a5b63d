"""Types of columns as published files have them, for comparison with those of a file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa
from pyarrow import types


@dataclass(frozen=True)
class ColumnType:
    """Type by its name in messages; `holds` says whether an Arrow type is one of its forms."""

    name: str
    holds: Callable[[pa.DataType], bool]


def list_of(item: ColumnType) -> ColumnType:
    """Lists, of any width of offset."""
    return ColumnType(f"list of {item.name}", lambda kind: _is_list(kind) and item.holds(kind.value_type))


def mapping_of(**fields: ColumnType) -> ColumnType:
    """Structs that have at least these fields."""

    def holds(kind: pa.DataType) -> bool:
        if not types.is_struct(kind):
            return False
        found = {field.name: field.type for field in kind}
        return all(name in found and fields[name].holds(found[name]) for name in fields)

    return ColumnType("{" + ", ".join(f"{name}: {kind.name}" for name, kind in fields.items()) + "}", holds)


def any_of(*kinds: ColumnType) -> ColumnType:
    """Any of several."""
    return ColumnType(" or ".join(kind.name for kind in kinds), lambda found: any(kind.holds(found) for kind in kinds))


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if types.is_dictionary(kind) else kind
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _is_binary(kind: pa.DataType) -> bool:
    return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(types.is_integer(kind) or types.is_floating(kind))


def _is_list(kind: pa.DataType) -> bool:
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _is_image_mapping(kind: pa.DataType) -> bool:
    return bool(types.is_struct(kind) and any(field.name in ("bytes", "path") for field in kind))


TEXT = ColumnType("text", _is_text)
INTEGER = ColumnType("integer", types.is_integer)
NUMBER = ColumnType("number", _is_number)
ANYTHING = ColumnType("anything", lambda _: True)
BINARY = ColumnType("bytes", _is_binary)
IMAGE = any_of(BINARY, ColumnType("{bytes, path}", _is_image_mapping), ColumnType("path", _is_text))
IMAGES = list_of(IMAGE)
MESSAGES = list_of(mapping_of(role=TEXT, content=TEXT))
ANSWER = any_of(TEXT, NUMBER, list_of(TEXT))
