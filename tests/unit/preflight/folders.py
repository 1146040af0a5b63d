"""Model folders without weights, and data files, small enough to be made by a test."""

from __future__ import annotations

import functools
import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLProcessor, Qwen2VLImageProcessor
from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

from benchmarks.weight_transfer.state import LAYERS, TEXT, VISION, VISION_BLOCKS
from recipes.cpu_demo.tiny_tokenizer import CHAT_TEMPLATE, train_tokenizer

PARAMETERS_7B = 8_292_166_656
"""Of Qwen2.5-VL-7B-Instruct: half of the 16,584,333,312 bytes that its published weights take in bfloat16."""

TEXT_7B = {**TEXT, "num_hidden_layers": LAYERS, "max_position_embeddings": 128_000, "max_window_layers": 28}
VISION_7B = {**VISION, "depth": VISION_BLOCKS, "fullatt_block_indexes": [7, 15, 23, 31]}
TEXT_TINY = {
    **TEXT_7B,
    "vocab_size": 512,
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 8192,
    "rope_parameters": {"rope_type": "default", "mrope_section": [4, 6, 6], "rope_theta": 10_000.0},
    "tie_word_embeddings": True,
}
VISION_TINY = {
    **VISION_7B,
    "depth": 2,
    "hidden_size": 64,
    "intermediate_size": 192,
    "num_heads": 2,
    "out_hidden_size": 128,
}
VISION_TINY["fullatt_block_indexes"] = [1]


@functools.cache
def _tokenizer() -> Any:
    return train_tokenizer(["Which colour is it? How many balls are there? red blue 1 2 3"] * 4)


def make_model(folder: Path, size: str = "tiny") -> Path:
    """A folder with configuration, tokenizer and processor; `size` is `tiny` or `7b`. No weights but an empty file."""
    text, vision = (TEXT_7B, VISION_7B) if size == "7b" else (TEXT_TINY, VISION_TINY)
    config = Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        tie_word_embeddings=text["tie_word_embeddings"],
        architectures=["Qwen2_5_VLForConditionalGeneration"],
    )
    config.save_pretrained(folder)
    most = 12_845_056 if size == "7b" else 112 * 112
    processor = Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(min_pixels=28 * 28 * 4, max_pixels=most),
        tokenizer=_tokenizer(),
        video_processor=Qwen2VLVideoProcessor(),
        chat_template=CHAT_TEMPLATE,
    )
    processor.save_pretrained(folder)
    (folder / "model.safetensors").touch()
    return folder


def png(width: int = 28, height: int = 28) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(buffer, "PNG")
    return buffer.getvalue()


def row(index: int, images: list[dict[str, Any]] | None = None, question: str = "Which colour?") -> dict[str, Any]:
    """A good RL record, with these images if given."""
    return {
        "data_source": "test/easy",
        "prompt": [{"role": "user", "content": f"<image>{question}"}],
        "images": [{"bytes": png(), "path": None}] if images is None else images,
        "ability": "easy",
        "reward_model": {"style": "rule", "ground_truth": "red"},
        "extra_info": {"split": "train", "index": index},
    }


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path
