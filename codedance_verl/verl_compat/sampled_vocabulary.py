"""Tokens that vLLM never samples under verl 0.9.1, in training and in serving."""

from __future__ import annotations

from typing import Any

from verl.workers.rollout.utils import get_vision_placeholder_token_ids


def never_sampled(tokenizer: Any, processor: Any, rows: int) -> list[int]:
    """Returns the ids that vLLM never samples, ascending. `rows`: of the embedding, padding included."""
    placeholders = get_vision_placeholder_token_ids(processor) if processor is not None else []
    return sorted({*range(len(tokenizer), rows), *placeholders})
