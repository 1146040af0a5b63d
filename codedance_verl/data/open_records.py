"""Finds records whose answers a judge may have to grade."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from codedance_verl.grading.custom import CustomGraders
from codedance_verl.grading.ladder import RULE, is_open


def first_open_record(path: str | Path, graders: CustomGraders | None = None) -> int | None:
    """Row of the first record whose answer may need a judge (`grading.ladder.is_open`); None without one.

    Records that `graders`, the user's own, grade need none.

    None too where the file is none of records: `schema.check_file` tells it.
    """
    try:
        columns = ["reward_model", "prompt", "extra_info.question", "data_source"]
        rows = pq.ParquetFile(path).read(columns=columns).to_pylist()
    except (pa.ArrowException, OSError):
        return None
    for number, row in enumerate(rows):
        value = row.get("reward_model")
        if not isinstance(value, Mapping):
            continue
        style = str(value.get("style") or RULE)
        if graders is not None and graders.path_for(style, str(row.get("data_source") or "")) is not None:
            continue
        if is_open(str(value.get("ground_truth") or ""), style, _question(row)):
            return number
    return None


def _question(row: Mapping[str, Any]) -> str:
    """The question as the record states it, else its last message; empty where there is neither."""
    extra, prompt = row.get("extra_info"), row.get("prompt")
    if isinstance(extra, Mapping) and extra.get("question"):
        return str(extra["question"])
    last = prompt[-1] if isinstance(prompt, list) and prompt else None
    return str(last.get("content") or "") if isinstance(last, Mapping) else ""
