"""Sizes of a tiny model, and what its family makes of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedConfig, PreTrainedTokenizerFast, ProcessorMixin


@dataclass(frozen=True)
class TinyShape:
    """Sizes of the model. `head_dim` is `hidden // heads`; vLLM's CPU attention needs at least 32.

    `vocabulary` is the least number of rows of the embedding; by default there are as many as tokens, rounded up. The
    largest image has `side_tokens` squared tokens.
    """

    hidden: int = 128
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    ffn: int = 384
    vision_hidden: int = 64
    vision_layers: int = 2
    vision_ffn: int = 192
    vision_heads: int = 2
    vocabulary: int = 0
    side_tokens: int = 4
    max_positions: int = 8_192

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads


@dataclass(frozen=True)
class TinyFamily:
    """Differences between the tiny models of two families.

    Attributes:
        config: configuration of a model of these sizes for this tokenizer.
        processor: processor of text and images; larger images are scaled to `TinyShape.side_tokens` a side.
        vision_residual: end of the name of what the vision tower's feed-forward layers add to their residual stream.
    """

    config: Callable[[PreTrainedTokenizerFast, TinyShape], PreTrainedConfig]
    processor: Callable[[PreTrainedTokenizerFast, TinyShape], ProcessorMixin]
    vision_residual: str


def text_settings(tokenizer: PreTrainedTokenizerFast, shape: TinyShape) -> dict[str, Any]:
    """Settings of the language model that both families have."""
    ids = tokenizer.get_vocab()
    return {
        # rows of the embedding: more than there are tokens, a multiple of 64
        "vocab_size": max(math.ceil(len(tokenizer) / 64) * 64, shape.vocabulary),
        "hidden_size": shape.hidden,
        "intermediate_size": shape.ffn,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "max_position_embeddings": shape.max_positions,
        "tie_word_embeddings": True,
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"],
        "pad_token_id": ids["<|endoftext|>"],
    }


def vision_settings(shape: TinyShape) -> dict[str, Any]:
    """Settings of the vision tower that both families have."""
    return {
        "depth": shape.vision_layers,
        "hidden_size": shape.vision_hidden,
        "intermediate_size": shape.vision_ffn,
        "num_heads": shape.vision_heads,
        "out_hidden_size": shape.hidden,
        # 2 x 2 patches are merged into a token
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    }


def image_tokens(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """Settings of the whole model that both families have: ids of the tokens around and in place of an image."""
    ids = tokenizer.get_vocab()
    return {
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
        "tie_word_embeddings": True,
    }
