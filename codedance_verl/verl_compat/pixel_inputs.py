"""Pixel values for the engines: packed bytes become floats on the device, one micro-batch at a time."""

from __future__ import annotations

from typing import Any

from tensordict import NonTensorData, NonTensorStack, TensorDict
from verl.utils.device import get_device_id

from codedance_verl.verl_compat.pixel_bytes import BYTES, unpack

FIELD = "multi_modal_inputs"
"""verl's field of a batch with a dictionary of tensors for each row."""


def with_pixel_values(micro_batch: TensorDict) -> TensorDict:
    """Returns the batch with `pixel_bytes.VALUES` in each row that has packed ones; the batch itself is unchanged."""
    queued = micro_batch.get(FIELD, None)
    rows = [row.data if isinstance(row, NonTensorData) else row for row in (() if queued is None else queued)]
    if not any(row and BYTES in row for row in rows):  # of a text, of SFT, or of a processor of another kind
        return micro_batch
    device, found = get_device_id(), micro_batch.copy()
    found[FIELD] = NonTensorStack(*(unpack(row or {}, device) for row in rows))
    return found


class UnpacksPixels:
    """Mixin for verl's FSDP engines, to be named before them among the bases."""

    def prepare_model_inputs(self, micro_batch: TensorDict) -> Any:
        """Calls verl's method on pixel values as the processor made them."""
        return super().prepare_model_inputs(micro_batch=with_pixel_values(micro_batch))  # type: ignore[misc]
