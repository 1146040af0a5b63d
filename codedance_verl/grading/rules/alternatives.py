"""Ground truths with several right answers, any of which counts, in the one text that a record's ground truth is.

The text is a JSON array between two marks, `<any_of>["red", "crimson"]</any_of>`: no answer that people write has them,
logs show it as it is, and it survives JSON, Parquet and YAML.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence

# Most right answers of one record, which bounds the time of a comparison.
MAX_ALTERNATIVES = 64

_OPENING, _CLOSING = "<any_of>", "</any_of>"


def encode_alternatives(texts: Sequence[str]) -> str:
    """Ground truth of which each of the texts is a right answer; repetitions are left out, one text stays as it is.

    Raises:
        ValueError: there is no text, one is blank, or more than `MAX_ALTERNATIVES` of them differ.
    """
    distinct = list(dict.fromkeys(text.strip() for text in texts))
    if not distinct or not all(distinct):
        raise ValueError("a list of right answers needs at least one text, and none that is blank")
    if len(distinct) > MAX_ALTERNATIVES:
        raise ValueError(f"{len(distinct)} right answers of one record; at most {MAX_ALTERNATIVES} are compared")
    if len(distinct) == 1 and not distinct[0].startswith(_OPENING):
        return distinct[0]
    return f"{_OPENING}{json.dumps(distinct, ensure_ascii=False)}{_CLOSING}"


def alternatives_of(ground_truth: str) -> tuple[str, ...]:
    """Right answers that a ground truth stands for: itself alone, where it is not of `encode_alternatives`."""
    bare, texts = ground_truth.strip(), None
    if bare.startswith(_OPENING) and bare.endswith(_CLOSING):
        # a truth that only looks like one stays itself: nothing of a data file may end a run here
        with contextlib.suppress(ValueError, RecursionError):
            texts = json.loads(bare[len(_OPENING) : -len(_CLOSING)])
    if not isinstance(texts, list) or not 0 < len(texts) <= MAX_ALTERNATIVES:
        return (ground_truth,)
    return tuple(texts) if all(isinstance(text, str) and text.strip() for text in texts) else (ground_truth,)


def show_alternatives(ground_truth: str) -> str:
    """Ground truth in words for a reader, "red, or: crimson"; an ordinary one as it is."""
    return ", or: ".join(alternatives_of(ground_truth))
