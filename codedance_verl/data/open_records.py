"""Finds records whose answers a judge may have to grade."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from codedance_verl.data.faults import BadRow
from codedance_verl.data.messages import messages_of
from codedance_verl.data.parquet import batches, open_parquet
from codedance_verl.data.rows import DEFAULT_KEYS, Keys, Kind, find_columns, mapping_of, style_of
from codedance_verl.data.truths import truth_of
from codedance_verl.errors import UserError
from codedance_verl.grading.custom import CustomGraders
from codedance_verl.grading.matchers import is_open
from codedance_verl.grading.rules.alternatives import alternatives_of
from codedance_verl.types import question_of


def first_open_record(path: str | Path, graders: CustomGraders | None = None, keys: Keys = DEFAULT_KEYS) -> int | None:
    """Row of the first record whose answer may need a judge (`grading.ladder.is_open`); None without one.

    Records that `graders`, the user's own, grade need none.

    None too where the file is none of records: `checking.check_file` tells it. Images are not read.
    """
    path, number = Path(path), 0
    try:
        parquet = open_parquet(path)
        prompt = find_columns(path, parquet.schema_arrow.names, Kind.QUESTIONS, keys).prompt
        for batch in batches(path, parquet, ("reward_model", prompt, "extra_info.question", "data_source")):
            for row in batch.to_pylist():
                if _is_open(row, prompt, graders or CustomGraders()):
                    return number
                number += 1
    except UserError:
        return None
    return None


def _is_open(row: Mapping[str, Any], prompt: str, graders: CustomGraders) -> bool:
    try:
        reward_model = mapping_of(row.get("reward_model"), "reward_model")
        truth, style = truth_of(reward_model.get("ground_truth")), style_of(reward_model.get("style"))
        messages, _ = messages_of(row.get(prompt), prompt)
        extra_info = mapping_of(row.get("extra_info"), "extra_info")
        question = question_of(extra_info, ((message.role, message.content) for message in messages))
    except BadRow:
        return False
    if graders.path_for(style, str(row.get("data_source") or "")) is not None:
        return False
    return any(is_open(text, style, question) for text in alternatives_of(truth))
