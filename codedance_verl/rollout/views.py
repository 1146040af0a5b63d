"""Pictures by reference and as views: whole for the sandbox, no larger than need be for the model.

The sandbox gets the record's own file, once. The model gets a view: the same picture with at most so many pixels. Code
sees `input_image` in full, so coordinates are always those of the full picture.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from codedance_verl.images import as_rgb

LONGEST_TO_SHORTEST = 100
"""Processors of the Qwen family refuse pictures over 200 to 1; narrower ones are padded to this."""

PatchCount = Callable[[int, int], int]
"""Merged patches, each one token, of a picture of this width and height."""

MARKS = 2
"""Tokens around the patches of a picture: where it begins and where it ends."""


class SharedViews:
    """The views of one record's pictures: made by the first of its rollouts, and held once for all of them."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._views: Sequence[Image.Image] | None = None

    async def get(self, make: Callable[[], Awaitable[Sequence[Image.Image]]]) -> list[Image.Image]:
        """The views, in a list of the caller's own; `make` is called where there are none yet."""
        async with self._lock:
            if self._views is None:
                self._views = await make()
        return list(self._views)


def image_parts(messages: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """The parts of messages that are pictures, in order."""
    for message in messages:
        if isinstance(message["content"], list):
            yield from (part for part in message["content"] if part.get("type") == "image")


def put_views(messages: Sequence[Mapping[str, Any]], views: Sequence[Image.Image]) -> None:
    """Let go of decoded pictures, which can be large: in place of each, its view. Files and their bytes stay."""
    for part, view in zip(image_parts(messages), views, strict=True):
        if isinstance(part.get("image"), Image.Image) and part.get("bytes"):
            part["image"] = view


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
    image = as_rgb(image)
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
        as_rgb(reference).save(buffer, "PNG", compress_level=1)
        return buffer.getvalue()
    return Path(str(reference).removeprefix("file://")).read_bytes()
