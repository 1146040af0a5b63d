"""FSDP engine of verl that masks the tokens verl's vLLM never samples, with exact and loadable weights under LoRA.

In vLLM the logits of image placeholders, and of embedding rows that the tokenizer has no token for, are set to minus
infinity (`monkey_patch_compute_logits` in verl 0.9.1). A trainer that counts them in has log-probs of another
distribution: lower ones, by the probability of these tokens, which training could raise without a trace.

With LoRA weights go to vLLM as `lora.py` merges them, and so they do to the Hugging Face folder of a checkpoint: verl
0.9.1 writes one with the adapter's own names in it, which loads as a model of random weights.

Imported by verl as `model.external_lib`; takes the place of `FSDPEngineWithLMHead` through verl's registry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict
from verl.workers.engine.base import EngineRegistry
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

from codedance_verl.verl_compat.lora import merged_weights
from codedance_verl.verl_compat.pixel_inputs import UnpacksPixels
from codedance_verl.verl_compat.repairs import repair_model
from codedance_verl.verl_compat.sampled_vocabulary import never_sampled

NEVER = -1e4
"""Logit of no probability, yet finite: minus infinity times zero would spoil the entropy."""


def without(ids: Sequence[int]) -> Callable[[torch.nn.Module, Any, torch.Tensor], torch.Tensor]:
    """Returns a forward hook for the layer of logits [..., vocabulary]; it writes in place, as logits are large."""
    index = torch.tensor(ids, dtype=torch.long)

    def hook(_module: torch.nn.Module, _inputs: Any, logits: torch.Tensor) -> torch.Tensor:
        return logits.index_fill_(-1, index.to(logits.device), NEVER)

    return hook


@EngineRegistry.register(
    model_type="language_model", backend=["fsdp", "fsdp2"], device="cuda", vendor=["nvidia", "cpu"]
)
class SampledVocabularyEngine(UnpacksPixels, FSDPEngineWithLMHead):  # type: ignore[misc]
    """Engine of verl for actor, reference and SFT, with the logits masked as vLLM's are.

    Fused kernels (`use_fused_kernels`) make no logits; with them the difference stays.
    """

    def _build_module(self) -> torch.nn.Module:
        repair_model(self.model_config.hf_config.model_type)
        module: torch.nn.Module = super()._build_module()
        head: Any = module.get_output_embeddings()  # type: ignore[operator]
        ids = never_sampled(self.model_config.tokenizer, self.model_config.processor, head.weight.shape[0])
        if ids:
            head.register_forward_hook(without(ids))
        return module

    def _merged_lora_per_tensor_param(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yields the weights for vLLM; a hook of verl's."""
        return merged_weights(self.module)

    def save_checkpoint(self, local_path: str, *args: Any, **kwargs: Any) -> None:
        """Saves verl's checkpoint; with LoRA its Hugging Face folder holds the merged model."""
        manager = self.checkpoint_manager
        if not self._is_lora or not manager.should_save_hf_model:
            super().save_checkpoint(local_path, *args, **kwargs)
            return
        # verl saves all parts but the folder, which is written below
        wanted = manager.checkpoint_save_contents
        manager.checkpoint_save_contents = [part for part in wanted if part != "hf_model"]
        try:
            super().save_checkpoint(local_path, *args, **kwargs)
        finally:
            manager.checkpoint_save_contents = wanted
        # every rank gathers, only the first one writes
        merged = {name: weight.cpu() for name, weight in merged_weights(self.module)}
        if self.rank == 0:
            save_torch_state_dict(merged, str(Path(local_path) / "huggingface"))
        torch.distributed.barrier()  # no rank may report the checkpoint as whole before it is written
