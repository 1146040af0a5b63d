"""Kinds of questions that demonstrations for SFT never answer by a call."""

from __future__ import annotations

from pathlib import Path

from codedance_verl.data.parquet import batches, open_parquet
from codedance_verl.errors import UserError
from codedance_verl.evaluation.outcomes import read_questions
from codedance_verl.formats import DEFAULT_FORMAT, get_format

_COLUMNS = ("kind", "messages")


def undemonstrated_kinds(demonstrations: Path, test_file: Path, format_name: str = DEFAULT_FORMAT) -> tuple[str, ...]:
    """Kinds of hard test questions of which no demonstration holds a call, those without any demonstration included.

    Args:
        demonstrations: parquet file for SFT, with `kind` and `messages` in each row.
        test_file: parquet file of questions, with `kind` and `difficulty` in `extra_info`.
        format_name: format of the calls in the demonstrations.

    Raises:
        UserError: a file is missing, broken, or lacks these columns; names it.
    """
    hard = {question.kind for question in read_questions(test_file) if question.difficulty == "hard"}
    return tuple(sorted(hard - _demonstrated(demonstrations, format_name)))


def _demonstrated(path: Path, format_name: str) -> set[str]:
    """Kinds with at least one demonstration that calls code."""
    file = open_parquet(path)
    if missing := sorted(set(_COLUMNS) - set(file.schema_arrow.names)):
        raise UserError(f"{path}: not a file of demonstrations with kinds, it has no column {missing[0]}")
    turn_format = get_format(format_name)
    found: set[str] = set()
    for batch in batches(path, file, _COLUMNS):
        for row in batch.to_pylist():
            turns = [message["content"] for message in row["messages"] if message["role"] == "assistant"]
            # one call is enough for a kind: the parsing of all others is saved
            if row["kind"] not in found and any(turn_format.parse(turn).code is not None for turn in turns):
                found.add(row["kind"])
    return found
