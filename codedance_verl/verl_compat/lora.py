"""Weights with LoRA's adapters merged in, computed beside the model that is trained.

verl 0.9.1 merges in place and restores afterwards (`merged_lora_context`), and rounds to bfloat16 on the way. With
FSDP2 layers that belong to no wrapped block, such as the patch merger of Qwen2.5-VL, stay merged: from the second step
on their adapters count twice in training. Nothing is touched here, so nothing has to be restored.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from peft.tuners.lora import Linear, LoraLayer
from torch.distributed.tensor import DTensor
from verl.utils.fsdp_utils import normalize_peft_param_name
from verl.utils.model import convert_weight_keys

_BASE = ".base_layer.weight"
_ADAPTER = "default"
"""verl's adapter has peft's default name."""


def merged_weights(module: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Yields the weights under the model's own names and in its precision, one whole tensor at a time.

    Every rank must take them all, as each is gathered from all ranks.

    Raises:
        NotImplementedError: a layer has an adapter of another kind than plain LoRA of a linear layer.
    """
    state, scaling = module.state_dict(), _scaling(module)
    clean = convert_weight_keys(normalize_peft_param_name({name: name for name in state}), module)
    for name, source in clean.items():
        weight = _whole(state[source])
        if source.endswith(_BASE):
            layer = source.removesuffix(_BASE)
            # LoRA: W + scaling * B A, with A [rank, inputs] and B [outputs, rank]
            down, up = (_whole(state[f"{layer}.lora_{side}.{_ADAPTER}.weight"]) for side in "AB")
            # the product in the adapters' precision, rounded once to that of the weight
            weight = weight + scaling[layer] * (up @ down).to(weight.dtype)
        yield name, weight


def _scaling(module: Any) -> dict[str, float]:
    """Returns the factor of each layer's adapter, alpha / rank as a rule, by the name of the layer."""
    found = {name: layer for name, layer in module.named_modules() if isinstance(layer, LoraLayer)}
    for name, layer in found.items():
        plain = isinstance(layer, Linear) and not layer.fan_in_fan_out and not layer.lora_magnitude_vector
        if not plain or set(layer.lora_A) != {_ADAPTER}:
            raise NotImplementedError(f"{name}: its adapter is not plain LoRA of a linear layer, and cannot be merged")
    return {name: float(layer.scaling[_ADAPTER]) for name, layer in found.items()}


def _whole(parameter: torch.Tensor) -> torch.Tensor:
    """Returns a copy of the whole tensor, gathered from all ranks where it is sharded."""
    whole = parameter.full_tensor() if isinstance(parameter, DTensor) else parameter
    # on one rank a gathered tensor is the model's own storage, which training continues to change
    return whole.detach().clone()
