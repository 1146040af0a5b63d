"""Models of the sizes of the check, with random weights: nothing is downloaded."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText

from codedance_verl.runtime.atomic import replacing
from recipes.cpu_demo.tiny_qwen2_5 import make_processor, model_config
from recipes.cpu_demo.tiny_shape import TinyShape
from recipes.cpu_demo.tiny_tokenizer import texts_of, train_tokenizer
from recipes.cpu_demo.tiny_vlm import initialise, set_generation_defaults

SIZES: dict[str, TinyShape] = {
    # text sizes of Qwen2.5-0.5B, with a vision tower of an eighth
    "0.5b": TinyShape(
        hidden=896,
        layers=24,
        heads=14,
        kv_heads=2,
        ffn=4864,
        vision_hidden=640,
        vision_layers=8,
        vision_ffn=1712,
        vision_heads=8,
        vocabulary=151_936,
        max_positions=32_768,
    ),
    # sizes of Qwen2.5-VL-3B-Instruct
    "3b": TinyShape(
        hidden=2048,
        layers=36,
        heads=16,
        kv_heads=2,
        ffn=11_008,
        vision_hidden=1280,
        vision_layers=32,
        vision_ffn=3420,
        vision_heads=16,
        vocabulary=151_936,
        max_positions=32_768,
    ),
}


def make_model(folder: Path, size: str, demonstrations: Path, weights: bool = True, seed: int = 0) -> Path:
    """Makes a Qwen2.5-VL in bfloat16 in `folder`, on the GPU where there is one; returns the folder.

    What was in `folder` is replaced once the model is whole. The GPU's memory is given back: the runs need it.

    Args:
        size: one of `SIZES`.
        demonstrations: parquet file whose text makes the tokenizer.
        weights: False writes configuration, tokenizer and processor alone, which is what a dry run reads.
    """
    shape, tokenizer = SIZES[size], train_tokenizer(texts_of(demonstrations))
    config = model_config(tokenizer, shape)
    config.architectures = ["Qwen2_5_VLForConditionalGeneration"]
    with replacing(folder) as partial:
        partial.mkdir(parents=True)
        make_processor(tokenizer, shape).save_pretrained(partial)
        if weights:
            _save_weights(partial, config, shape, tokenizer, seed)
            gc.collect()
            torch.cuda.empty_cache()
        else:
            config.save_pretrained(partial)
    return folder


def _save_weights(folder: Path, config: Any, shape: TinyShape, tokenizer: Any, seed: int) -> None:
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16)  # type: ignore[no-untyped-call]
    initialise(model, shape, seed)
    set_generation_defaults(model, tokenizer)
    model.save_pretrained(folder)
