"""Files of benchmarks in small: images made on the spot, in the layouts of the published ones."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from codedance_verl.tasks.item import Item, JudgeRequest, Score
from codedance_verl.tasks.references import open_image


def image(number: int, form: str = "PNG") -> bytes:
    """Encoded image, `number` + 20 pixels wide."""
    data = io.BytesIO()
    Image.new("RGB", (20 + number, 10), (number % 256, 99, 0)).save(data, form)
    return data.getvalue()


def base64_image(number: int) -> str:
    return base64.b64encode(image(number)).decode()


def widths(items: Sequence[Item]) -> list[int]:
    """Numbers of the items' images, from their widths."""
    return [open_image(item.images[0]).width - 20 for item in items]


def struct(number: int) -> dict[str, Any]:
    """Image as the hub stores it."""
    return {"bytes": image(number), "path": None}


def parquet(path: Path, rows: Sequence[Mapping[str, Any]], group: int = 3) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), path, row_group_size=group)
    return path


def json_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def tsv(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Tab-separated file as pandas writes it: cells with tabs, quotes or line ends are quoted."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["\t".join(rows[0])] + ["\t".join(_cell(value) for value in row.values()) for row in rows]
    path.write_text("\n".join(lines) + "\n")
    return path


def _cell(value: Any) -> str:
    text = "" if value is None else str(value)
    return '"' + text.replace('"', '""') + '"' if any(sign in text for sign in '\t"\n') else text


def value_of(score: Score | JudgeRequest) -> float | None:
    """Value of a score that no judge is asked for."""
    assert isinstance(score, Score)
    return score.value
