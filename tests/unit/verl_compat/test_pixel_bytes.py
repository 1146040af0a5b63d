from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from codedance_verl.verl_compat.pixel_bytes import (
    BYTES,
    FRAMES,
    LEVELS,
    VALUES,
    joined,
    layout_of,
    pack,
    unpack,
    without_pixels,
)
from tests.unit.environment.harness import FAMILIES, processor


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def processed(family: str, images: Sequence[Image.Image], **how: Any) -> dict[str, Any]:
    return dict(processor(family).image_processor(images=list(images), return_tensors="pt", **how))


def bits(values: torch.Tensor) -> torch.Tensor:
    return values.view(torch.int32)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", [(56, 56), (333, 77), (41, 402), (1000, 1003)])
def test_values_come_back_with_the_same_bits_from_an_eighth_of_the_bytes(family: str, size: tuple[int, int]) -> None:
    inputs = processed(family, [noise(*size)])
    packed = pack(inputs, layout_of(processor(family).image_processor))
    assert packed[BYTES].dtype == torch.uint8 and VALUES not in packed
    assert packed[BYTES].numel() * 8 == inputs[VALUES].numel() * 4
    found = unpack(packed)
    assert torch.equal(bits(found[VALUES]), bits(inputs[VALUES])) and found.keys() == inputs.keys()
    assert found["image_grid_thw"] is inputs["image_grid_thw"]


@pytest.mark.parametrize("family", FAMILIES)
def test_images_prepared_one_by_one_are_those_prepared_together(family: str) -> None:
    images = [noise(300, 200, 1), noise(80, 90, 2), noise(300, 200, 3), Image.new("RGB", (60, 60), "white")]
    layout = layout_of(processor(family).image_processor)
    together = processed(family, images)
    found = unpack(joined([pack(processed(family, [image]), layout) for image in images]))
    assert torch.equal(bits(found[VALUES]), bits(together[VALUES]))
    assert torch.equal(found["image_grid_thw"], together["image_grid_thw"])


def test_the_layout_has_the_value_of_each_level() -> None:
    layout = layout_of(processor("qwen2_5_vl").image_processor)
    assert layout is not None and layout.frames == 2 and layout.levels.shape == (3, 256)
    mean, std = (
        torch.tensor(getattr(processor("qwen2_5_vl").image_processor, f"image_{name}")) for name in ("mean", "std")
    )
    expected = (torch.arange(256) / 255 - mean[:, None]) / std[:, None]
    assert torch.allclose(layout.levels, expected, atol=1e-5)


def test_values_that_are_no_levels_stay_floats() -> None:
    layout = layout_of(processor("qwen3_vl").image_processor)
    inputs = processed("qwen3_vl", [noise(90, 90)])
    off = torch.nextafter(inputs[VALUES], torch.tensor(9.0))
    for values in (off, inputs[VALUES].double(), inputs[VALUES][:, :-1]):
        assert pack({**inputs, VALUES: values}, layout)[VALUES] is values
    assert pack(inputs, None)[VALUES] is inputs[VALUES]


def test_frames_that_differ_stay_floats() -> None:
    inputs = processed("qwen3_vl", [noise(90, 90)])
    moving = inputs[VALUES].clone()
    moving[0, 256] = moving[0, 0] + 1  # the first pixel of the second frame
    assert pack({**inputs, VALUES: moving}, layout_of(processor("qwen3_vl").image_processor))[VALUES] is moving


def test_an_image_that_stays_floats_is_joined_with_one_that_does_not() -> None:
    layout = layout_of(processor("qwen2_5_vl").image_processor)
    one, two = processed("qwen2_5_vl", [noise(90, 90, 1)]), processed("qwen2_5_vl", [noise(90, 60, 2)])
    found = joined([pack(one, layout), two])
    assert torch.equal(bits(found[VALUES]), bits(torch.cat([one[VALUES], two[VALUES]])))


def test_values_are_on_the_device_that_is_asked_for_whether_they_were_packed_or_not() -> None:
    inputs = processed("qwen3_vl", [noise(90, 90)])
    packed = pack(inputs, layout_of(processor("qwen3_vl").image_processor))
    rows = [unpack(row, "meta") for row in (packed, inputs)]
    assert [row[VALUES].device.type for row in rows] == ["meta", "meta"]
    assert rows[0][VALUES].shape == rows[1][VALUES].shape
    assert unpack(inputs)[VALUES] is inputs[VALUES] and unpack({}, "meta") == {}


def test_another_kind_of_processor_has_no_layout() -> None:
    class Other:
        patch_size, temporal_patch_size = 14, 2

        def __call__(self, **_: Any) -> dict[str, torch.Tensor]:
            return {VALUES: torch.zeros(1, 3, 224, 224)}

    assert layout_of(Other()) is None and layout_of(None) is None and layout_of(object()) is None


def test_what_nobody_trains_on_has_no_pixels() -> None:
    inputs = processed("qwen3_vl", [noise(90, 90)])
    packed = pack(inputs, layout_of(processor("qwen3_vl").image_processor))
    assert {BYTES, LEVELS, FRAMES} < packed.keys()
    assert without_pixels(packed).keys() == without_pixels(inputs).keys() == {"image_grid_thw"}
