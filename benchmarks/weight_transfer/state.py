"""Names and shapes of Qwen2.5-VL-7B's weights, and tensors of them, made one at a time as FSDP gathers them."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

LAYERS, VISION_BLOCKS = 28, 32
MIB = 2**20

TEXT = {
    "vocab_size": 152_064,
    "hidden_size": 3584,
    "intermediate_size": 18_944,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "rope_parameters": {"rope_type": "default", "mrope_section": [16, 24, 24], "rope_theta": 1_000_000.0},
    "tie_word_embeddings": False,
}
"""Sizes of the language model, but for the number of its layers."""

VISION = {
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "num_heads": 16,
    "out_hidden_size": 3584,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "window_size": 112,
}
"""Sizes of the vision tower, but for the number of its blocks."""


@dataclass(frozen=True)
class State:
    """Weights that are sent, in float32.

    Attributes:
        layers, vision_blocks: of the language model and the vision tower; 0 leaves embedding, head and merger.
        shrink: divides the rows of every tensor, 1 for the real shapes.
        values: `zeros`, or `numbers`, which take about 0.1 s for each million.
    """

    layers: int = LAYERS
    vision_blocks: int = VISION_BLOCKS
    shrink: int = 1
    values: str = "zeros"

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes by name, in the order of the model's state dict: two of 152064 x 3584."""
        from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

        config = Qwen2_5_VLConfig(text_config={**TEXT, "num_hidden_layers": self.layers}, vision_config=self._vision())
        config.tie_word_embeddings = False
        make: Any = Qwen2_5_VLForConditionalGeneration
        with torch.device("meta"):
            model = make(config)
        whole = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
        return {name: (-(-shape[0] // self.shrink), *shape[1:]) for name, shape in whole.items()}

    def weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """The tensors; nothing is kept of one when the next is asked for."""
        for name, shape in self.shapes().items():
            yield name, self._tensor(name, shape)

    def _tensor(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        if self.values == "zeros":
            return torch.zeros(shape)
        return torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))

    def _vision(self) -> dict[str, object]:
        return {**VISION, "depth": self.vision_blocks, "fullatt_block_indexes": list(range(7, self.vision_blocks, 8))}
