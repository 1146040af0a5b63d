"""Pictures by reference and as views: whole for the sandbox, no larger than need be for the model.

The sandbox gets the record's own file, once. The model gets a view: the same picture with at most so many pixels. Code
sees `input_image` in full, so coordinates are always those of the full picture.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

LONGEST_TO_SHORTEST = 100
"""Processors of the Qwen family refuse pictures over 200 to 1; narrower ones are padded to this."""

PatchCount = Callable[[int, int], int]
"""Merged patches, each one token, of a picture of this width and height."""

MARKS = 2
"""Tokens around the patches of a picture: where it begins and where it ends."""


def view_size(width: int, height: int, max_pixels: int) -> tuple[int, int]:
    """Width and height of the view of a picture: same proportions, at most `max_pixels`, never larger than it is."""
    scale = min(1.0, (max_pixels / (width * height)) ** 0.5)
    return max(1, int(width * scale)), max(1, int(height * scale))


def padded_size(width: int, height: int) -> tuple[int, int]:
    """The size with its shorter side padded, where the picture is too narrow for a processor."""
    least = -(-max(width, height) // LONGEST_TO_SHORTEST)
    return max(width, least), max(height, least)


def make_view(image: Image.Image, max_pixels: int) -> Image.Image:
    """The picture as the model sees it: RGB, on white where it is narrow, at most `max_pixels`."""
    image = image.convert("RGB")
    size = padded_size(*image.size)
    if size != image.size:
        canvas = Image.new("RGB", size, "white")
        canvas.paste(image)
        image = canvas
    target = view_size(*image.size, max_pixels)
    return image if target == image.size else image.resize(target, Image.Resampling.BICUBIC)


def patch_count(processor: Any) -> PatchCount:
    """How many merged patches this processor makes of a picture, without rendering it."""
    from_size, merge = processor.image_processor.get_number_of_image_patches, processor.image_processor.merge_size
    return lambda width, height: int(from_size(height, width, {})) // int(merge) ** 2


def source_bytes(reference: Any) -> bytes:
    """The file of a picture as the record has it; encoded as PNG only where it came decoded.

    `reference` is what verl's dataset leaves in a message: a mapping with `bytes` or a picture or path under `image`.
    """
    if isinstance(reference, Mapping):
        reference = reference.get("bytes") or reference.get("image")
    if isinstance(reference, bytes):
        return reference
    if isinstance(reference, Image.Image):
        buffer = io.BytesIO()
        reference.convert("RGB").save(buffer, "PNG", compress_level=1)
        return buffer.getvalue()
    return Path(str(reference).removeprefix("file://")).read_bytes()
