"""Tokenizer and chat template of the tiny models, made of the text of the demonstrations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
from tokenizers import (  # type: ignore[import-untyped]
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    pre_tokenizers,
    trainers,
)
from transformers import PreTrainedTokenizerFast

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
