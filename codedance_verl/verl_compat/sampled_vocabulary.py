"""Which tokens vLLM never samples under verl 0.9.1, in training and in serving."""

from __future__ import annotations

from typing import Any

from verl.workers.rollout.utils import get_vision_placeholder_token_ids


def never_sampled(tokenizer: Any, processor: Any, rows: int) -> list[int]:
    """Ids that vLLM never samples, ascending. `rows`: how many rows the embedding has."""
    placeholders = get_vision_placeholder_token_ids(processor) if processor is not None else []
    return sorted({*range(len(tokenizer), rows), *placeholders})
