"""verl's FSDP engine, blind to the tokens that verl's vLLM never samples.

There the logits of picture placeholders, and of embedding rows that the tokenizer has no token for, are set to minus
infinity (`monkey_patch_compute_logits` in verl 0.9.1). A trainer that counts them in has log-probs of another
distribution: lower ones, by as much as these tokens get of the probability, and it could drive that up unseen.

Imported by verl as `model.external_lib`; takes the place of `FSDPEngineWithLMHead` through verl's registry.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from verl.workers.engine.base import EngineRegistry
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead
from verl.workers.rollout.utils import get_vision_placeholder_token_ids

NEVER = -1e4
"""A logit of no probability, yet finite: minus infinity times zero would spoil the entropy."""


def never_sampled(tokenizer: Any, processor: Any, rows: int) -> list[int]:
    """Ids that vLLM never samples, ascending. `rows`: how many rows the embedding has."""
    placeholders = get_vision_placeholder_token_ids(processor) if processor is not None else []
    return sorted({*range(len(tokenizer), rows), *placeholders})


def without(ids: Sequence[int]) -> Callable[[torch.nn.Module, Any, torch.Tensor], torch.Tensor]:
    """A forward hook for the layer that makes logits [..., vocabulary]; it writes in place, as logits are large."""
    index = torch.tensor(ids, dtype=torch.long)

    def hook(_module: torch.nn.Module, _inputs: Any, logits: torch.Tensor) -> torch.Tensor:
        return logits.index_fill_(-1, index.to(logits.device), NEVER)

    return hook


@EngineRegistry.register(
    model_type="language_model", backend=["fsdp", "fsdp2"], device="cuda", vendor=["nvidia", "cpu"]
)
class SampledVocabularyEngine(FSDPEngineWithLMHead):  # type: ignore[misc]
    """verl's engine for actor, reference and SFT, with the logits masked as vLLM's are.

    Fused kernels (`use_fused_kernels`) make no logits; with them the difference stays.
    """

    def _build_module(self) -> torch.nn.Module:
        module: torch.nn.Module = super()._build_module()
        head: Any = module.get_output_embeddings()  # type: ignore[operator]
        ids = never_sampled(self.model_config.tokenizer, self.model_config.processor, head.weight.shape[0])
        if ids:
            head.register_forward_hook(without(ids))
        return module
