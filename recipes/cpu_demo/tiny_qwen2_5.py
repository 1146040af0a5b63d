"""Tiny Qwen2.5-VL: window attention in the vision tower, a token of 28 x 28 pixels."""

from __future__ import annotations

from transformers import PreTrainedTokenizerFast, Qwen2_5_VLConfig, Qwen2_5_VLProcessor, Qwen2VLImageProcessor
from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

from recipes.cpu_demo.tiny_shape import TinyFamily, TinyShape, image_tokens, text_settings, vision_settings
from recipes.cpu_demo.tiny_tokenizer import CHAT_TEMPLATE

PATCH, TOKEN = 14, 28
"""Pixels of the side of a patch and of a token."""


def model_config(tokenizer: PreTrainedTokenizerFast, shape: TinyShape) -> Qwen2_5_VLConfig:
    """The configuration of a model of these sizes for this tokenizer."""
    quarter = shape.head_dim // 8
    text = text_settings(tokenizer, shape) | {
        "max_window_layers": shape.layers,
        "rope_parameters": {
            "rope_type": "default",
            # pairs of rotary dimensions for time, height and width; together half of a head's
            "mrope_section": [quarter, *[(shape.head_dim // 2 - quarter) // 2] * 2],
            "rope_theta": 10_000.0,
        },
    }
    vision = vision_settings(shape) | {
        "patch_size": PATCH,
        # pixels: one window holds the whole of an image
        "window_size": shape.side_tokens * TOKEN,
        "fullatt_block_indexes": [shape.vision_layers - 1],
    }
    return Qwen2_5_VLConfig(text_config=text, vision_config=vision, **image_tokens(tokenizer))


def make_processor(tokenizer: PreTrainedTokenizerFast, shape: TinyShape) -> Qwen2_5_VLProcessor:
    """The processor of text and images; larger images are scaled to `shape.side_tokens` tokens a side."""
    # four tokens at least
    images = Qwen2VLImageProcessor(min_pixels=4 * TOKEN**2, max_pixels=(shape.side_tokens * TOKEN) ** 2)
    return Qwen2_5_VLProcessor(  # type: ignore[no-untyped-call]
        image_processor=images,
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(),
        chat_template=CHAT_TEMPLATE,
    )


FAMILY = TinyFamily(model_config, make_processor, vision_residual="down_proj.weight")
