"""Images by reference and resized: whole for the sandbox, no larger than need be for the model.

The sandbox gets the record's own file, once. The model gets the same image with at most so many pixels. Code sees
`input_image` in full, so coordinates are always those of the full image.
"""

from __future__ import annotations

import asyncio
import io
import math
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from codedance_verl.images import as_rgb, decode, pixels_sha256

LONGEST_TO_SHORTEST = 100
"""Processors of the Qwen family refuse images over 200 to 1; narrower ones are padded to this."""

LEAST_SIDE = 28
"""Pixels: the side of a token. Some processors refuse images with a shorter one."""

PatchCount = Callable[[int, int], int]
"""Merged patches, each one token, of an image of this width and height."""

MARKS = 2
"""Tokens around the patches of an image: its start and its end."""


@dataclass(frozen=True)
class ResizedImage:
    """Image as the model sees it, with `images.pixels_sha256` of the whole image that it was made of."""

    image: Image.Image
    pixels_sha256: str


class SharedImages:
    """Resized images of one record: made by the first of its rollouts, and held once for all of them."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._resized: Sequence[ResizedImage] | None = None

    async def get(self, make: Callable[[], Awaitable[Sequence[ResizedImage]]]) -> list[ResizedImage]:
        """Returns the resized images, in a list of the caller's own; calls `make` where there are none yet."""
        async with self._lock:  # one rollout makes them while the others wait; a failure leaves them to the next one
            if self._resized is None:
                self._resized = await make()
        return list(self._resized)


def image_parts(messages: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yields the parts of messages that are images, in order."""
    for message in messages:
        if isinstance(message["content"], list):
            yield from (part for part in message["content"] if part.get("type") == "image")


def load_resized(messages: Sequence[Mapping[str, Any]], max_pixels: int) -> list[ResizedImage]:
    """Reads the images of messages, decodes them as the sandbox does, and resizes them.

    Raises what `images.decode` and the reading of a file raise.
    """
    return [ResizedImage(resize_image(image, max_pixels), pixels_sha256(image)) for image in decoded_images(messages)]


def decoded_images(messages: Sequence[Mapping[str, Any]]) -> Iterator[Image.Image]:
    """Yields the images of messages, whole. Raises what `load_resized` does."""
    return (_decoded(part) for part in image_parts(messages))


def resized_size(width: int, height: int, max_pixels: int | None) -> tuple[int, int]:
    """Returns width and height of the resized image of an image of this size.

    Padded where it is narrower than 1 to `LONGEST_TO_SHORTEST`, enlarged where a side is under `LEAST_SIDE` pixels, and
    scaled down to `max_pixels` (None: no limit), which goes before the rest.
    """
    width, height = padded_size(width, height)
    # `scale` enlarges the shorter side to `LEAST_SIDE`; `most` is the factor at which the area meets `max_pixels`
    scale = max(1.0, LEAST_SIDE / min(width, height))
    most = math.inf if max_pixels is None else (max_pixels / (width * height)) ** 0.5
    if scale < most:
        return round(width * scale), round(height * scale)
    return max(1, int(width * most)), max(1, int(height * most))


def padded_size(width: int, height: int) -> tuple[int, int]:
    """Returns the size with its shorter side padded, where the image is too narrow for a processor."""
    least = -(-max(width, height) // LONGEST_TO_SHORTEST)
    return max(width, least), max(height, least)


def resize_image(image: Image.Image, max_pixels: int | None) -> Image.Image:
    """Returns the image as the model sees it: RGB, on white where it is narrow, of `resized_size`."""
    target = resized_size(*image.size, max_pixels)
    image = as_rgb(image)
    size = padded_size(*image.size)
    if size != image.size:
        canvas = Image.new("RGB", size, "white")
        canvas.paste(image)
        image = canvas
    return image if target == image.size else image.resize(target, Image.Resampling.BICUBIC)


def patch_count(processor: Any) -> PatchCount:
    """Returns a counter of the merged patches that this processor makes of an image, without rendering it."""
    from_size, merge = processor.image_processor.get_number_of_image_patches, processor.image_processor.merge_size
    return lambda width, height: int(from_size(height, width, {})) // int(merge) ** 2


def source_bytes(reference: Any) -> bytes:
    """Returns the file of an image as the record has it; encodes a PNG only where it came decoded.

    `reference`: encoded bytes, an image, the path of a file, anything with `read_bytes`, or the part of a message that
    has one of these under `bytes` or `image`.
    """
    if isinstance(reference, Mapping):
        reference = reference.get("bytes") or reference.get("image")
    if isinstance(reference, bytes):
        return reference
    if isinstance(reference, Image.Image):
        buffer = io.BytesIO()
        as_rgb(reference).save(buffer, "PNG", compress_level=1)
        return buffer.getvalue()
    if isinstance(reference, str):
        reference = Path(reference.removeprefix("file://"))
    return bytes(reference.read_bytes())


def _decoded(part: Mapping[str, Any]) -> Image.Image:
    image = part.get("image")
    if isinstance(image, Image.Image) and not part.get("bytes"):
        rgb: Image.Image = as_rgb(image)
        return rgb
    return decode(source_bytes(part))
