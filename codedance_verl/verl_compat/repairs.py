"""Repairs of verl 0.9.1 and torch. One function per defect; each names the defect and its place, and applies once."""

from __future__ import annotations

import functools
import importlib.metadata
import inspect
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.fsdp import CPUOffloadPolicy

VERL_VERSION = "0.9.1"


def require_verl_version() -> None:
    """Raises when verl is another version than the one these repairs were written for.

    Raises:
        RuntimeError: names both versions.
    """
    found = importlib.metadata.version("verl")
    if found != VERL_VERSION:
        raise RuntimeError(
            f"codedance_verl.verl_compat repairs verl {VERL_VERSION}, but verl {found} is installed: "
            f"install verl=={VERL_VERSION}, or check each function of codedance_verl/verl_compat/repairs.py against it"
        )


def _require_source(function: Callable[..., Any], defect: str, question: str, repair: Callable[[], None]) -> None:
    """Raises where a function of verl's no longer has the defect that a repair is for.

    Args:
        function: verl's own.
        defect: part of its source that the repair replaces.
        question: check to make where the source differs.
        repair: of this module.

    Raises:
        RuntimeError: names the function, the question and the repair.
    """
    if defect not in inspect.getsource(function):
        raise RuntimeError(
            f"{function.__module__}.{function.__qualname__} is not that of verl {VERL_VERSION}: check {question}, and "
            f"remove or adapt {repair.__module__}.{repair.__qualname__}"
        )


def name_each_process_group_backend_once() -> None:
    """Repairs verl's "cpu:gloo,<device>:<backend>", which names the CPU twice on a CPU; torch refuses that."""
    original = dist.init_process_group

    @functools.wraps(original)
    def init_process_group(backend: str | None = None, *args: Any, **kwargs: Any) -> Any:
        if isinstance(backend, str) and "," in backend:
            backend = ",".join(dict.fromkeys(backend.split(",")))
        return original(backend, *args, **kwargs)

    dist.init_process_group = init_process_group


def offload_without_pinned_memory() -> None:
    """Repairs the offload of verl's FSDP2 reference model to pinned memory, which only an accelerator has."""
    original = CPUOffloadPolicy.__init__

    def without_pinning(self: CPUOffloadPolicy, pin_memory: bool = False) -> None:
        original(self, pin_memory=False)

    CPUOffloadPolicy.__init__ = without_pinning  # type: ignore[method-assign]


DEVICE_CHECK = "if total_available_gpus < total_required_gpus:\n            raise ValueError("
"""Source of the defect of verl 0.9.1 that `wait_for_devices` repairs."""


def wait_for_devices() -> None:
    """Has verl wait for devices that another job holds.

    Its `ResourcePoolManager` raises where fewer GPUs are free than it will request, just before it requests them from
    Ray and would wait. That wait is bounded and explained (`placement_limit_s`, `cluster/placement_groups.py`), and
    a lack of the nodes themselves is an error before (`preflight/nodes.py`).

    Raises:
        RuntimeError: verl's function is another one than the one this was written for.
    """
    from verl.single_controller.ray.base import ResourcePoolManager

    original = ResourcePoolManager._check_resource_available
    if getattr(original, "leaves_it_to_placement", False):
        return
    _require_source(original, DEVICE_CHECK, "whether it raises where another job holds GPUs", wait_for_devices)

    @functools.wraps(original)
    def leave_it_to_placement(self: Any) -> None:
        return None

    leave_it_to_placement.leaves_it_to_placement = True  # type: ignore[attr-defined]
    ResourcePoolManager._check_resource_available = leave_it_to_placement


def repair_model(model_type: str) -> None:
    """Repairs verl's functions for a model of this type, as its `config.json` names it."""
    if model_type in ("qwen2_vl", "qwen2_5_vl"):
        embed_text_alone()


TEXT_BRANCH = (
    "image_embeds = model.visual(pixel_values, grid_thw=image_grid_thw)\n"
    "        inputs_embeds = inputs_embeds + 0.0 * image_embeds.mean()"
)
"""Source of the defect of verl 0.9.1 that `embed_text_alone` repairs."""


def embed_text_alone() -> None:
    """Repairs Qwen2-VL and Qwen2.5-VL on micro-batches without an image, on every device, with transformers 5.

    verl runs the vision tower on an empty image there, so that every rank has gradients of the same parameters, and
    takes the mean of its result, an object in transformers 5. A micro-batch of padding rows meets the defect: such
    rows fill up a batch that a failed group has left incomplete.

    Raises:
        RuntimeError: verl's function is another one than the one this was written for.
    """
    from verl.models.transformers import qwen2_vl

    original = qwen2_vl._get_input_embeds
    if getattr(original, "embeds_text_alone", False):
        return
    question = "whether its branch without images unpacks what the vision tower returns"
    _require_source(original, TEXT_BRANCH, question, embed_text_alone)

    @functools.wraps(original)
    def embeds(
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        *grids: Any,
        **more: Any,
    ) -> Any:
        if pixel_values is not None or pixel_values_videos is not None:
            return original(model, input_ids, attention_mask, pixel_values, pixel_values_videos, *grids, **more)
        embedded = model.get_input_embeddings()(input_ids)
        # times 0: no value changes, and backward passes reach the vision tower with gradients of 0
        embedded = embedded + 0.0 * _features_of_nothing(model, embedded).mean()
        return embedded, None if attention_mask is None else attention_mask.to(embedded.device)

    embeds.embeds_text_alone = True  # type: ignore[attr-defined]
    qwen2_vl._get_input_embeds = embeds


def _features_of_nothing(model: Any, like: torch.Tensor) -> torch.Tensor:
    """Returns the features [4, hidden] of an image of 16 patches, all zeros; dtype and device are those of `like`."""
    from verl.utils.transformers_compat import unpack_visual_output

    vision = model.config.vision_config
    patch = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    patches = torch.zeros((16, patch), dtype=like.dtype, device=like.device)
    # frames, rows and columns of patches; 2 x 2 of them are merged into a feature
    grid = torch.tensor([[1, 4, 4]], device=like.device)
    features: torch.Tensor = unpack_visual_output(model.visual(patches, grid_thw=grid))[0]
    return features
