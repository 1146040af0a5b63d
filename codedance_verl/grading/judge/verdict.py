"""Reads the judge's reply. It has exactly the form that was asked for, or it is no verdict."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

_FENCE = re.compile(r"```(?:json)?\s*\n(.*)\n```", re.DOTALL)
_FIELDS = {"case", "reason", "verdict"}
_VERDICTS = {"correct": True, "wrong": False}
MAX_REASON_CHARS = 300


class NoVerdict(Exception):
    """Reason, in a few words, why there is no verdict."""


@dataclass(frozen=True)
class Judgement:
    """Verdict of the judge and its reason in a sentence."""

    correct: bool
    reason: str


def read_verdict(text: object, case: str) -> Judgement:
    """Reads a reply that must be one JSON object with the right case number; a code fence around it is allowed.

    Raises:
        NoVerdict: anything else.
    """
    if not isinstance(text, str) or not text.strip():
        raise NoVerdict("the reply of the judge is empty")
    bare = text.strip()
    if fenced := _FENCE.fullmatch(bare):
        bare = fenced.group(1).strip()
    try:
        found = json.loads(bare, object_pairs_hook=_without_repetition)
    except (ValueError, RecursionError):
        raise NoVerdict("the judge's reply is not one JSON object") from None
    fields = found if isinstance(found, dict) else {}
    if set(fields) != _FIELDS or not all(isinstance(value, str) for value in fields.values()):
        raise NoVerdict("the judge's reply has other fields than asked for")
    if found["case"] != case:
        raise NoVerdict("the judge's reply is to another case")
    if found["verdict"] not in _VERDICTS:
        raise NoVerdict("the judge's verdict is neither correct nor wrong")
    return Judgement(_VERDICTS[found["verdict"]], found["reason"][:MAX_REASON_CHARS])


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A mapping; raises ValueError where a field is given twice, as readers differ in which of them holds."""
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError("a field is given twice")
    return dict(pairs)
