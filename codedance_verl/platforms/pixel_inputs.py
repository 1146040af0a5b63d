"""Pixel values for the engines: packed bytes become floats on the device, one micro-batch at a time."""

from __future__ import annotations

from typing import Any

from tensordict import NonTensorData, NonTensorStack, TensorDict
from verl.utils.device import get_device_id

from codedance_verl.pixels import unpack

FIELD = "multi_modal_inputs"
"""verl's field of a batch with a dictionary of tensors for each row."""


def with_pixel_values(micro_batch: TensorDict) -> TensorDict:
    """The batch with `pixels.VALUES` in each row that has packed ones; the batch itself is left as it is."""
    rows = micro_batch.get(FIELD, None)
    if rows is None:
        return micro_batch
    device = get_device_id()
    found = micro_batch.copy()
    found[FIELD] = NonTensorStack(*(_row(row, device) for row in rows))
    return found


def _row(row: Any, device: Any) -> Any:
    inputs = row.data if isinstance(row, NonTensorData) else row
    return inputs if inputs is None else unpack(inputs, device)


class UnpacksPixels:
    """Mixed into verl's FSDP engines, before them."""

    def prepare_model_inputs(self, micro_batch: TensorDict) -> Any:
        """verl's, on pixel values as the processor made them."""
        return super().prepare_model_inputs(micro_batch=with_pixel_values(micro_batch))  # type: ignore[misc]
