"""Tiny Qwen3-VL: DeepStack, interleaved rotary sections, normalised queries and keys, a token of 32 x 32 pixels."""

from __future__ import annotations

from transformers import PreTrainedTokenizerFast, Qwen2VLImageProcessor, Qwen3VLConfig, Qwen3VLProcessor
from transformers.models.qwen3_vl.video_processing_qwen3_vl import Qwen3VLVideoProcessor

from recipes.cpu_demo.tiny_shape import TinyFamily, TinyShape, image_tokens, text_settings, vision_settings
from recipes.cpu_demo.tiny_tokenizer import CHAT_TEMPLATE

PATCH, TOKEN = 16, 32
"""Pixels of the side of a patch and of a token."""

_GREY = (0.5, 0.5, 0.5)
"""Mean and standard deviation of a channel to the published processor: pixels become -1 to 1."""


def model_config(tokenizer: PreTrainedTokenizerFast, shape: TinyShape) -> Qwen3VLConfig:
    """The configuration of a model of these sizes for this tokenizer."""
    pairs = shape.head_dim // 2
    # of three neighbouring pairs one turns by time, one by height, one by width, the last ones by time: 24, 20 and 20
    # of 64 in the published models, and here the same shares
    side = pairs * 5 // 16
    text = text_settings(tokenizer, shape) | {
        "head_dim": shape.head_dim,
        "rope_parameters": {
            "rope_type": "default",
            "mrope_section": [pairs - 2 * side, side, side],
            "mrope_interleaved": True,
            "rope_theta": 10_000.0,
        },
    }
    # Features of the tower's layers are added to the image's tokens after the first layers of the language model, one
    # after each. After its last layer they would reach no other token: two layers have room for one. Published: three.
    levels = min(3, shape.layers - 1, shape.vision_layers - 1)
    vision = vision_settings(shape) | {
        "patch_size": PATCH,
        # a learned position for every patch of the largest image
        "num_position_embeddings": (shape.side_tokens * TOKEN // PATCH) ** 2,
        # as far apart as in the published models: 5, 11 and 17 of 24
        "deepstack_visual_indexes": [shape.vision_layers * (level + 1) // (levels + 1) - 1 for level in range(levels)],
    }
    return Qwen3VLConfig(text_config=text, vision_config=vision, **image_tokens(tokenizer))


def make_processor(tokenizer: PreTrainedTokenizerFast, shape: TinyShape) -> Qwen3VLProcessor:
    """The processor of text and images; larger images are scaled to `shape.side_tokens` tokens a side."""
    images = Qwen2VLImageProcessor(
        patch_size=PATCH,
        # four tokens at least
        min_pixels=4 * TOKEN**2,
        max_pixels=(shape.side_tokens * TOKEN) ** 2,
        image_mean=_GREY,
        image_std=_GREY,
    )
    return Qwen3VLProcessor(  # type: ignore[no-untyped-call]
        image_processor=images,
        tokenizer=tokenizer,
        video_processor=Qwen3VLVideoProcessor(),
        chat_template=CHAT_TEMPLATE,
    )


FAMILY = TinyFamily(model_config, make_processor, vision_residual="mlp.linear_fc2.weight")
