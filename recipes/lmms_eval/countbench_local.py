"""Functions of `countbench_local.yaml`, which lmms-eval loads from beside it."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image


def images(row: dict[str, Any]) -> list[Any]:
    """Image of a row, decoded; a file that does not state the hub's types has its bytes."""
    found = row["image"]
    return [(Image.open(io.BytesIO(found["bytes"])) if isinstance(found, dict) else found).convert("RGB")]


def messages(row: dict[str, Any], lmms_eval_specific_kwargs: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """Messages in lmms-eval's form: the image, then the question."""
    parts = [{"type": "image", "url": images(row)[0]}, {"type": "text", "text": row["question"].strip()}]
    return [{"role": "user", "content": parts}]


def scores(row: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Accuracy of a reply: it must be the number, in digits."""
    return {"accuracy": float(results[0].strip() == str(int(row["number"])))}
