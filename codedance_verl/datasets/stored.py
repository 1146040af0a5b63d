"""Records as `codedance data` writes them: the published layout, with paths of stored images in place of the images.

Regions and points of the image, in pixels, stand in `extra_info`; what a file has beside the known keys is kept as JSON
text in `extra_info.other`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from codedance_verl.data.fields import Source, read_source
from codedance_verl.data.rows import CanonicalRow, Kind
from codedance_verl.data.schema import RECORD_SCHEMA, SFT_SCHEMA
from codedance_verl.datasets.image_store import ImageStore, reference
from codedance_verl.types import stated_record_id

_IMAGES = pa.list_(pa.string())
_NUMBERS = dict.fromkeys(("x", "y"), pa.float64())
REGION = pa.struct({"label": pa.string(), **dict.fromkeys(("x1", "y1", "x2", "y2"), pa.float64())})
POINT = pa.struct({"label": pa.string(), **_NUMBERS})

_EXTRA = pa.struct(
    [
        *RECORD_SCHEMA.field("extra_info").type,
        pa.field("source_id", pa.string()),
        pa.field("regions", pa.list_(REGION)),
        pa.field("points", pa.list_(POINT)),
        pa.field("evidence", pa.string()),
        pa.field("other", pa.string()),
    ]
)
QUESTION_SCHEMA = pa.schema(
    [field.with_type({"images": _IMAGES, "extra_info": _EXTRA}.get(field.name, field.type)) for field in RECORD_SCHEMA]
)
DEMONSTRATION_SCHEMA = pa.schema(
    [field.with_type(_IMAGES) if field.name == "images" else field for field in SFT_SCHEMA]
)
SCHEMAS: Mapping[Kind, pa.Schema] = {Kind.QUESTIONS: QUESTION_SCHEMA, Kind.DEMONSTRATIONS: DEMONSTRATION_SCHEMA}

_TEXTS = tuple(field.name for field in _EXTRA if pa.types.is_string(field.type) and field.name != "other")
_KNOWN = frozenset(field.name for field in _EXTRA)


def image_paths(sources: Sequence[Source], store: ImageStore, file: Path, copy_files: bool) -> list[str]:
    """References of the images of a record of `file`; what is no file of its own is stored first.

    With `copy_files` image files are stored too; without, the record refers to them where they lie. Raises BadRow
    where such a file cannot be read.
    """
    found = []
    for source in sources:
        if isinstance(source, bytes):
            found.append(store.put(source))
        else:
            found.append(store.put(read_source(source, "images")) if copy_files else source)
    return [reference(path, file) for path in found]


def stored_row(row: CanonicalRow[Source], images: Sequence[str], name: str, kind: Kind) -> dict[str, Any]:
    """Row in `SCHEMAS[kind]`. `name` is the record's where it states none (`stated_name`)."""
    messages = [{"role": message.role, "content": message.content} for message in row.messages]
    if kind is Kind.DEMONSTRATIONS:
        labels = {key: _text(row.extra_info.get(key)) for key in ("record_id", "kind", "difficulty", "style")}
        return {"messages": messages, "images": list(images), **labels, "record_id": labels["record_id"] or name}
    extra = _extra(row.extra_info)
    extra["record_id"] = _text(stated_name(row)) or name
    return {
        "data_source": row.data_source,
        "prompt": messages,
        "images": list(images),
        "ability": row.ability,
        "reward_model": {"style": row.style, "ground_truth": row.ground_truth},
        "extra_info": extra,
    }


def stated_name(row: CanonicalRow[Source]) -> str:
    """Id that a record states; empty where it states none.

    A name of source and index is one only for variants of a question, which share it: an index may come again in other
    files, and two questions of one id count as one.
    """
    stated = row.extra_info.get("record_id")
    if not stated and row.extra_info.get("variant"):
        stated = stated_record_id(row.data_source, row.extra_info)
    return str(stated or "")


def _extra(stated: Mapping[str, Any]) -> dict[str, Any]:
    index = stated.get("index")
    whole = isinstance(index, int) and not isinstance(index, bool)
    found: dict[str, Any] = {key: stated.get(key) for key in _KNOWN}
    found |= {key: _text(stated.get(key)) for key in _TEXTS}
    found["index"] = index if whole else None
    if not whole and found["source_id"] is None:
        found["source_id"] = _text(index)
    others = {key: value for key, value in stated.items() if key not in _KNOWN and value is not None}
    merged = _others(stated.get("other")) | others  # of files of other writers
    found["other"] = json.dumps(merged, default=_plain, ensure_ascii=False) if merged else None
    return found


def _others(kept: Any) -> dict[str, Any]:
    """Keys that an earlier command kept as JSON text; anything else of that name is a key of its own."""
    try:
        found = json.loads(kept) if isinstance(kept, str) else kept
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {} if kept in (None, "") else {"other": kept}


def _text(value: Any) -> str | None:
    return None if value is None or value == "" else str(value)


def _plain(value: Any) -> str | None:
    return None if isinstance(value, bytes) else str(value)
