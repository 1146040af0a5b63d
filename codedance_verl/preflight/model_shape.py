"""Sizes of a model from its `config.json` alone, built on torch's meta device, where weights take no memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codedance_verl.errors import UserError


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a model that memory and lengths depend on. Shared parameters (tied embeddings) are counted once.

    Attributes:
        name: the `model_type` of the configuration.
        parameters, vision_parameters: all, and those of the vision tower.
        block_parameters: of the largest block that FSDP gathers at once.
        largest_weight: values of the largest single weight, which is the embedding or the head as a rule.
        outer_parameters: of what belongs to no block (embeddings, head, norms): gathered for a whole pass.
        lora_parameters_per_rank: inputs and outputs of all linear layers but the head: times the rank of LoRA, what it
            trains.
        layers, hidden, intermediate, vocabulary: of the language model.
        heads, kv_heads, head_dim: of its attention.
        positions: tokens it can read at most.
        vision_layers, vision_hidden, merge: blocks and width of the vision tower, 0 without one, and how many patches a
            token's side has.
    """

    name: str
    parameters: int
    vision_parameters: int
    block_parameters: int
    largest_weight: int
    outer_parameters: int
    lora_parameters_per_rank: int
    layers: int
    hidden: int
    intermediate: int
    vocabulary: int
    heads: int
    kv_heads: int
    head_dim: int
    positions: int
    vision_layers: int
    vision_hidden: int
    merge: int

    def kv_bytes_per_token(self, bytes_per_value: int) -> int:
        """Returns the bytes of keys and values of one token over all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim * bytes_per_value


def read_shape(folder: Path, key: str) -> ModelShape:
    """Returns the shape of the model whose `config.json` is in this folder.

    Raises:
        UserError: transformers makes no model of it; names the dotted key `key`.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

    try:
        config: Any = AutoConfig.from_pretrained(folder, local_files_only=True)
        auto: Any = AutoModelForImageTextToText if hasattr(config, "vision_config") else AutoModelForCausalLM
        with torch.device("meta"):
            model = auto.from_config(config)
    except Exception as error:  # whatever a wrong value in config.json makes transformers or torch raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise UserError(f"{key}={folder}: its config.json makes no model ({reason})") from error
    return shape_of(model, config)


def shape_of(model: Any, config: Any) -> ModelShape:
    """Returns the shape of a model, with weights or on the meta device."""
    import torch

    text, vision = config.get_text_config(), getattr(config, "vision_config", None)
    # the classes that FSDP wraps one by one, of language model and vision tower
    blocks = [
        sum(parameter.numel() for parameter in module.parameters())
        for module in model.modules()
        if type(module).__name__ in (model._no_split_modules or ())
    ]
    head = model.get_output_embeddings()
    # LoRA of rank r adds r x (inputs + outputs) weights to a linear layer; the head gets none
    linear = [item for item in model.modules() if isinstance(item, torch.nn.Linear) and item is not head]
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return ModelShape(
        name=str(config.model_type),
        parameters=parameters,
        vision_parameters=sum(value.numel() for name, value in model.named_parameters() if "visual." in name),
        block_parameters=max(blocks, default=parameters),
        largest_weight=max((parameter.numel() for parameter in model.parameters()), default=0),
        outer_parameters=parameters - sum(blocks),
        lora_parameters_per_rank=sum(item.in_features + item.out_features for item in linear),
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        intermediate=text.intermediate_size,
        vocabulary=text.vocab_size,
        heads=text.num_attention_heads,
        kv_heads=text.num_key_value_heads,
        # Qwen3 states it; elsewhere it follows from the width
        head_dim=getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads,
        positions=text.max_position_embeddings,
        vision_layers=getattr(vision, "depth", 0),
        vision_hidden=getattr(vision, "hidden_size", 0),
        merge=getattr(vision, "spatial_merge_size", 1),
    )
