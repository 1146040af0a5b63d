"""What is kept of the tokens that were sampled for a turn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def kept_tokens(tokenizer: Any, ids: Sequence[int], stop_strings: Sequence[str]) -> list[int]:
    """The tokens up to the one that completes the first stop string.

    vLLM stops there by itself, except where a generation was interrupted in the midst of a stop string (weight sync in
    the asynchronous modes) and went on: it looks for stop strings in what it has generated since.
    """
    if not _complete(tokenizer, ids[:-1], stop_strings):
        return list(ids)
    low, high = 1, len(ids) - 1  # ids[:high] holds a whole stop string
    while low < high:
        middle = (low + high) // 2
        if _complete(tokenizer, ids[:middle], stop_strings):
            high = middle
        else:
            low = middle + 1
    return list(ids[:high])


def _complete(tokenizer: Any, ids: Sequence[int], stop_strings: Sequence[str]) -> bool:
    text = tokenizer.decode(list(ids), skip_special_tokens=True)
    return any(stop in text for stop in stop_strings)
