"""A Qwen2.5-VL of well under a million parameters, built on the spot with a tokenizer of its own.

It has every part of the real one (window attention in the vision tower, patch merger, multimodal rotary positions,
grouped-query attention), loads through the Auto classes and in vLLM, and learns to write code within minutes on a CPU.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import torch
from tokenizers import (  # type: ignore[import-untyped]
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    pre_tokenizers,
    trainers,
)
from transformers import (
    AutoModelForImageTextToText,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
)
from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

from codedance_verl.errors import UserError

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
MARKUP_TOKENS = (
    "<think>",
    "</think>",
    "<code>",
    "</code>",
    "<answer>",
    "</answer>",
    "<tool_response>",
    "</tool_response>",
    "<tool_call>",
    "</tool_call>",
)
"""One token each, not special: they survive decoding, and a stop at a closing tag falls on a token's end."""

_SPLIT = Regex(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Where byte-pair merges must not cross: words, single digits, runs of punctuation, as the Qwen2 family splits text."""

CHAT_TEMPLATE = """\
{%- macro body(content) -%}
{%- if content is string -%}{{ content }}
{%- else -%}
{%- for part in content -%}
{%- if part.type == 'image' -%}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}
{%- elif part.type == 'text' -%}{{ part.text }}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{%- endmacro -%}
{%- for message in messages -%}
{{ '<|im_start|>' + ('user' if message.role == 'tool' else message.role) + '\\n' }}
{{- body(message.content) }}
{{- '<|im_end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}
"""
"""Every message is rendered by itself, so a longer conversation always begins with the tokens of a shorter one.

There is no default system message, and an observation is a user turn (a `tool` role is rendered as one).
"""


@dataclass(frozen=True)
class TinyShape:
    """Sizes of the model. `head_dim` is `hidden // heads`; vLLM's CPU attention needs at least 32.

    `vocabulary` is the least number of rows of the embedding; by default there are as many as tokens, rounded up.
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
    image_side: int = 112
    max_positions: int = 8_192


def build_tiny_model(
    sft_file: str | Path,
    out_dir: str | Path,
    seed: int = 0,
    shape: TinyShape | None = None,
) -> Path:
    """Makes tokenizer, processor and randomly initialised float32 weights from the text of the demonstrations.

    Writes a Hugging Face folder that AutoProcessor and AutoModelForImageTextToText load; returns it.
    """
    shape = shape or TinyShape()
    out = Path(out_dir)
    tokenizer = train_tokenizer(texts_of(Path(sft_file)))
    torch.manual_seed(seed)
    config = model_config(tokenizer, shape)
    model = AutoModelForImageTextToText.from_config(config, dtype=torch.float32)  # type: ignore[no-untyped-call]
    initialise(model, shape, seed)
    set_generation_defaults(model, tokenizer)
    try:
        out.mkdir(parents=True, exist_ok=True)
        model.save_pretrained(out)
        make_processor(tokenizer, shape).save_pretrained(out)
    except OSError as error:
        raise UserError(
            f"cannot write the model to {out}: {error}; free some space or choose another folder"
        ) from error
    return out


def train_tokenizer(texts: Iterable[str], vocabulary: int = 1_024) -> PreTrainedTokenizerFast:
    """A byte-level byte-pair tokenizer; any text can be encoded, and what the demonstrations say often is short."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(_SPLIT, behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[],
        show_progress=False,
    )
    # markup is left out of the training, so that no merge is spent on letters of tags
    tokenizer.train_from_iterator(_without_markup(texts), trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in MARKUP_TOKENS])
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        model_max_length=8_192,
        chat_template=CHAT_TEMPLATE,
    )


def initialise(model: torch.nn.Module, shape: TinyShape, seed: int) -> None:
    """Draws every matrix with standard deviation 1/sqrt(fan in), and what feeds a residual sum / sqrt(2 layers) less.

    With the library's flat 0.02 a model this narrow starts with signals so faint that it learns no copying in minutes.
    """
    generator = torch.Generator(next(model.parameters()).device).manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.dim() < 2:
            continue
        # [out, ...]: what is behind the first axis feeds one output, for a linear layer as for the patch convolution
        fan_in = parameter[0].numel()
        scale = 1 / math.sqrt(fan_in)
        # each layer adds two of these to the residual stream: without the factor its variance would grow with the depth
        if name.endswith(("o_proj.weight", "attn.proj.weight", "down_proj.weight")):
            scale /= math.sqrt(2 * (shape.vision_layers if "visual" in name else shape.layers))
        with torch.no_grad():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, device=parameter.device) * scale)


def texts_of(sft_file: Path) -> Iterator[str]:
    """The messages of demonstrations, of which a tokenizer is made."""
    if not sft_file.is_file():
        raise UserError(
            f"no demonstrations at {sft_file}; make them with `codedance data make --out {sft_file.parent}`"
        )
    for batch in pq.ParquetFile(sft_file).iter_batches(columns=["messages"]):
        for messages in batch.column("messages").to_pylist():
            yield from (f"{message['role']}\n{message['content']}" for message in messages)


def _without_markup(texts: Iterable[str]) -> Iterator[str]:
    """The texts as the tokenizer will see them: cut at tokens that are never merged across."""
    for text in texts:
        for token in (*MARKUP_TOKENS, "<image>"):
            text = text.replace(token, "\0")
        yield from (piece for piece in text.split("\0") if piece)


def model_config(tokenizer: PreTrainedTokenizerFast, shape: TinyShape) -> Qwen2_5_VLConfig:
    """The configuration of a model of these sizes for this tokenizer."""
    ids = tokenizer.get_vocab()
    head_dim = shape.hidden // shape.heads
    quarter = head_dim // 8
    text = {
        # rows of the embedding: more than there are tokens, a multiple of 64
        "vocab_size": max(math.ceil(len(tokenizer) / 64) * 64, shape.vocabulary),
        "hidden_size": shape.hidden,
        "intermediate_size": shape.ffn,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "max_position_embeddings": shape.max_positions,
        "max_window_layers": shape.layers,
        "rope_parameters": {
            "rope_type": "default",
            # pairs of rotary dimensions for time, height and width; together half of a head's
            "mrope_section": [quarter, *[(head_dim // 2 - quarter) // 2] * 2],
            "rope_theta": 10_000.0,
        },
        "tie_word_embeddings": True,
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"],
        "pad_token_id": ids["<|endoftext|>"],
    }
    vision = {
        "depth": shape.vision_layers,
        "hidden_size": shape.vision_hidden,
        "intermediate_size": shape.vision_ffn,
        "num_heads": shape.vision_heads,
        "out_hidden_size": shape.hidden,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        # pixels: one window holds the whole of an image
        "window_size": shape.image_side,
        "fullatt_block_indexes": [shape.vision_layers - 1],
    }
    return Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )


def set_generation_defaults(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    """Gives the model the tokens at which generation ends."""
    assert model.generation_config is not None
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.bos_token_id = tokenizer.pad_token_id


def make_processor(tokenizer: PreTrainedTokenizerFast, shape: TinyShape) -> Qwen2_5_VLProcessor:
    """The processor of text and images; larger images are scaled to `shape.image_side` squared."""
    # a merged patch is 28 x 28 pixels: four of them at least
    images = Qwen2VLImageProcessor(min_pixels=28 * 28 * 4, max_pixels=shape.image_side**2)
    return Qwen2_5_VLProcessor(  # type: ignore[no-untyped-call]
        image_processor=images,
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(),
        chat_template=CHAT_TEMPLATE,
    )
