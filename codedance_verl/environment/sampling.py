"""What is kept of the tokens that were sampled for a turn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from codedance_verl.formats import TurnFormat


def kept_tokens(tokenizer: Any, ids: Sequence[int], format: TurnFormat) -> list[int]:
    """The tokens up to the one that completes the turn; all where none does.

    vLLM stops there by itself, except where a generation was interrupted in the midst of a stop string (weight sync in
    the asynchronous modes) and went on: it looks for stop strings in what it has generated since.
    """
    if not _complete(tokenizer, ids[:-1], format):
        return list(ids)
    low, high = 1, len(ids) - 1  # ids[:high] holds a whole turn
    while low < high:
        middle = (low + high) // 2
        if _complete(tokenizer, ids[:middle], format):
            high = middle
        else:
            low = middle + 1
    return list(ids[:high])


def _complete(tokenizer: Any, ids: Sequence[int], format: TurnFormat) -> bool:
    return format.end(tokenizer.decode(list(ids), skip_special_tokens=True)) is not None
