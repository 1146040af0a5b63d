"""Critic of PPO: the actor's architecture with one value for each token in the place of its logits.

verl 0.9.1 makes one of `AutoModelForTokenClassification`, which no vision-language model has, or else with trl, and
asks for flash-attention by name. Here the output layer of the very model that is trained is replaced by a row of
weights, so any model that can be an actor can be a critic. Takes the place of `FSDPEngineWithValueHead` through verl's
registry, in every process that gets a `ValueModelConfig`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from verl.workers.config import HFModelConfig
from verl.workers.engine.base import EngineRegistry
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithValueHead

from codedance_verl.verl_compat.pixel_inputs import UnpacksPixels
from codedance_verl.verl_compat.repairs import repair_model


@dataclass
class ValueModelConfig(HFModelConfig):  # type: ignore[misc]
    """Configuration node `critic.model`.

    verl 0.9.1 reads it in the trainer's process, where `external_lib` is of no use, and sends it to the critic's; there
    unpickling it imports this module.
    """


def with_value_head(module: Any) -> Any:
    """Replaces the output layer in place: the model's `logits` become values [..., 1], all of them 0 at first."""
    rows = module.get_output_embeddings().weight
    # weights [1, hidden] in the dtype and on the device of the layer they replace
    head = torch.nn.Linear(rows.shape[1], 1, bias=False, dtype=rows.dtype, device=rows.device)
    torch.nn.init.zeros_(head.weight)
    module.set_output_embeddings(head)
    module.config.tie_word_embeddings = False  # else tying puts the embedding in the place of the head
    return module


@EngineRegistry.register(model_type="value_model", backend=["fsdp", "fsdp2"], device="cuda", vendor=["nvidia", "cpu"])
class ValueEngine(UnpacksPixels, FSDPEngineWithValueHead):  # type: ignore[misc]
    """Critic engine of verl's on a model of the actor's kind."""

    def _build_module(self) -> torch.nn.Module:
        repair_model(self.model_config.hf_config.model_type)
        self.model_config.model_type = "language_model"  # has the base class load it as it loads an actor
        try:
            module = super()._build_module()
        finally:
            self.model_config.model_type = "value_model"
        return with_value_head(module)  # type: ignore[no-any-return]
