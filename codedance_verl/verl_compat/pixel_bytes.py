"""Pixel values as bytes: the 8-bit levels that a vision processor has normalised to float32, restored exactly.

A processor of the Qwen family maps each 8-bit level of a channel to one float32 and repeats the patches of a single
image once for each frame of a temporal patch. Both are undone by `pack` and redone by `unpack`, with the same bits: an
eighth of the bytes. What is not of this kind is left as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

VALUES = "pixel_values"
"""Input of models: float32 [patches, channels * frames * pixels of a patch]."""

BYTES = "pixel_bytes"
"""Input in the place of `VALUES`: uint8 [patches, channels, pixels of a patch]."""

LEVELS = "pixel_levels"
"""Input beside `BYTES`: float32 [channels, 256], the value of each level."""

FRAMES = "pixel_frames"
"""Input beside `BYTES`: how often each patch stands in `VALUES`."""

_LEVELS_OF_A_BYTE = 256
_SIDE = 16
"""Patches along the side of the image that shows every level once."""


@dataclass(frozen=True)
class PatchLayout:
    """Layout of a processor's patches.

    Attributes:
        levels: value of each 8-bit level, float32 [channels, 256], ascending.
        frames: how often each patch of a single image is repeated.
    """

    levels: torch.Tensor
    frames: int


def layout_of(image_processor: Any) -> PatchLayout | None:
    """Measures the layout by an image with one grey level a patch; None where the processor is of another kind."""
    patch, frames = (getattr(image_processor, name, None) for name in ("patch_size", "temporal_patch_size"))
    if not isinstance(patch, int) or not isinstance(frames, int):
        return None
    # 16 x 16 patches, one of each grey level: uint8 [16 * patch, 16 * patch]
    levels = np.arange(_LEVELS_OF_A_BYTE, dtype=np.uint8).reshape(_SIDE, _SIDE)
    shades = Image.fromarray(np.kron(levels, np.ones((patch, patch), np.uint8))).convert("RGB")
    values = image_processor(images=[shades], do_resize=False, return_tensors="pt")[VALUES]
    columns = frames * patch**2  # of a channel in a row of `values`, [256, channels * columns]
    if values.dtype != torch.float32 or values.ndim != 2 or len(values) != _LEVELS_OF_A_BYTE:
        return None
    if values.shape[1] % columns:
        return None
    # patches come in the order of merging: sorting restores that of the levels, as normalising keeps order
    found = values.view(_LEVELS_OF_A_BYTE, -1, columns)[:, :, 0].sort(dim=0).values.T.contiguous()
    # two levels of one value have no inverse, and cannot be restored
    return PatchLayout(found, frames) if bool((found.diff(dim=1) > 0).all()) else None


def pack(inputs: Mapping[str, Any], layout: PatchLayout | None) -> dict[str, Any]:
    """Returns a model's inputs of one or more images with `BYTES`, `LEVELS` and `FRAMES` in the place of `VALUES`.

    Returns the inputs as they are where `unpack` would not give the same bits: an image of another layout, or a video.
    """
    values = inputs.get(VALUES)
    if layout is None or values is None or values.dtype != torch.float32:
        return dict(inputs)
    channels = len(layout.levels)
    if values.ndim != 2 or values.shape[1] % (channels * layout.frames):
        return dict(inputs)
    # [patches, channels, frames, pixels]; for a single image all frames of a patch are equal
    frames = values.view(len(values), channels, layout.frames, -1)
    first = frames[:, :, 0]
    # normalising is linear up to rounding: the level is near (value - lowest) / step; [channels, 1] each
    lowest, highest = layout.levels[:, :1], layout.levels[:, -1:]
    nearest = (first - lowest).mul_((_LEVELS_OF_A_BYTE - 1) / (highest - lowest)).round_()
    levels = nearest.clamp_(0, _LEVELS_OF_A_BYTE - 1).to(torch.uint8)
    # rounding finds the nearest level; only the table shows that its value has these very bits
    if not _same_bits(frames, _looked_up(levels, layout.levels).unsqueeze(2)):
        return dict(inputs)
    packed = {BYTES: levels, LEVELS: layout.levels, FRAMES: layout.frames}
    return {**{name: value for name, value in inputs.items() if name != VALUES}, **packed}


def unpack(inputs: Mapping[str, Any], device: torch.device | str | int | None = None) -> dict[str, Any]:
    """Returns the inputs with `VALUES` as the processor made them, also where they are not packed.

    `device`: where the values are moved to, as bytes before they become floats; None for where they are. A micro-batch
    may have rows of both kinds, which a model takes from one device.
    """
    if BYTES not in inputs:
        return {name: value.to(device) if name == VALUES else value for name, value in inputs.items()}
    levels, frames = inputs[BYTES].to(device), int(inputs[FRAMES])
    first = _looked_up(levels, inputs[LEVELS].to(device))
    # [patches, channels, pixels] to [patches, channels * frames * pixels], each patch repeated for every frame
    values = first.unsqueeze(2).expand(-1, -1, frames, -1).reshape(len(first), -1)
    return {**{name: value for name, value in inputs.items() if name not in (BYTES, LEVELS, FRAMES)}, VALUES: values}


def joined(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the inputs of several images, one behind the other, from those of each.

    Packed where all of them are. What is the same for all (`LEVELS`, `FRAMES`, tensors without an entry a patch or an
    image) is that of the first.
    """
    if not all(BYTES in part for part in parts):
        parts = [unpack(part) for part in parts]
    return {name: torch.cat([part[name] for part in parts]) if name in _LONG else parts[0][name] for name in parts[0]}


def without_pixels(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the inputs without those that only a forward pass reads."""
    return {name: value for name, value in inputs.items() if name not in (VALUES, BYTES, LEVELS, FRAMES)}


_LONG = (VALUES, BYTES, "image_grid_thw", "images_seqlens")
"""Inputs with an entry for each patch or image along dimension 0."""


def _looked_up(levels: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Returns the float32 `values` [channels, 256] of `levels`, uint8 [patches, channels, pixels], in their shape."""
    # one table for all channels, one behind the other; int32, as an index of 64 bits takes twice as long
    starts = torch.arange(len(values), dtype=torch.int32, device=levels.device).mul_(_LEVELS_OF_A_BYTE)
    index = levels.int().add_(starts[:, None])
    return torch.index_select(values.flatten(), 0, index.flatten()).view(levels.shape)


def _same_bits(values: torch.Tensor, others: torch.Tensor) -> bool:
    # as integers: as floats -0.0 equals 0.0, and NaN differs from itself
    return bool((values.view(torch.int32) == others.view(torch.int32)).all())
