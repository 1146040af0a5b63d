"""A vision-language model of under a million parameters, built on the spot with a tokenizer of its own.

It has every part of the real model of its family (patch merger, multimodal rotary positions, grouped-query attention,
and what `tiny_qwen2_5` and `tiny_qwen3` name), loads through the Auto classes and in vLLM, and learns to write code
within minutes on a CPU.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from transformers import AutoModelForImageTextToText, PreTrainedModel, PreTrainedTokenizerFast

from codedance_verl.errors import UserError
from recipes.cpu_demo import tiny_qwen2_5, tiny_qwen3
from recipes.cpu_demo.tiny_shape import TinyFamily, TinyShape
from recipes.cpu_demo.tiny_tokenizer import texts_of, train_tokenizer

FAMILIES: dict[str, TinyFamily] = {"tiny": tiny_qwen2_5.FAMILY, "tiny_qwen3": tiny_qwen3.FAMILY}
"""By the name of the file in `conf/model`."""


def build_tiny_model(
    sft_file: str | Path,
    out_dir: str | Path,
    seed: int = 0,
    shape: TinyShape | None = None,
    model: str = "tiny",
) -> Path:
    """Makes tokenizer, processor and randomly initialised float32 weights from the text of the demonstrations.

    Writes a Hugging Face folder that AutoProcessor and AutoModelForImageTextToText load; returns it. `model` is one of
    `FAMILIES`.
    """
    shape, family = shape or TinyShape(), FAMILIES[model]
    out = Path(out_dir)
    tokenizer = train_tokenizer(texts_of(Path(sft_file)))
    torch.manual_seed(seed)
    config = family.config(tokenizer, shape)
    made = AutoModelForImageTextToText.from_config(config, dtype=torch.float32)  # type: ignore[no-untyped-call]
    initialise(made, shape, seed, family)
    set_generation_defaults(made, tokenizer)
    try:
        out.mkdir(parents=True, exist_ok=True)
        made.save_pretrained(out)
        family.processor(tokenizer, shape).save_pretrained(out)
    except OSError as error:
        raise UserError(
            f"cannot write the model to {out}: {error}; free some space or choose another folder"
        ) from error
    return out


def initialise(model: torch.nn.Module, shape: TinyShape, seed: int, family: TinyFamily = FAMILIES["tiny"]) -> None:
    """Draws every matrix with standard deviation 1/sqrt(fan in), and what feeds a residual sum / sqrt(2 layers) less.

    With the library's flat 0.02 a model this narrow starts with signals so faint that it learns no copying in minutes.
    """
    generator = torch.Generator(next(model.parameters()).device).manual_seed(seed)
    residual = ("o_proj.weight", "attn.proj.weight", "down_proj.weight", family.vision_residual)
    for name, parameter in model.named_parameters():
        if parameter.dim() < 2:
            continue
        # [out, ...]: what is behind the first axis feeds one output, for a linear layer as for the patch convolution
        fan_in = parameter[0].numel()
        scale = 1 / math.sqrt(fan_in)
        # each layer adds two of these to the residual stream: without the factor its variance would grow with the depth
        if name.endswith(residual):
            scale /= math.sqrt(2 * (shape.vision_layers if "visual" in name else shape.layers))
        with torch.no_grad():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, device=parameter.device) * scale)


def set_generation_defaults(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    """Gives the model the tokens at which generation ends."""
    assert model.generation_config is not None
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.bos_token_id = tokenizer.pad_token_id
