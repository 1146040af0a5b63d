"""Results of the authors' scripts on replies that were written for this project (`tests/data/tasks`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

DATA = Path(__file__).parents[2] / "data" / "tasks"


def results(name: str) -> dict[str, Any]:
    """Content of a file of results; `items` as mappings by its columns."""
    found: dict[str, Any] = json.loads((DATA / f"{name}.json").read_text())
    return found | {"items": [dict(zip(found["columns"], row, strict=True)) for row in found["items"]]}
