"""Decoding of encoded images, one way for data, environment, sandbox, evaluation and serving."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence

from PIL import Image

from sandbox_image.codedance_interpreter.pixels import as_rgb, orientation

__all__ = ["as_rgb", "decode", "pixels_sha256", "shown_size"]

_PNG_METADATA = (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp")
_TURNED = range(5, 9)
"""EXIF orientations that swap width and height."""


def decode(data: bytes, formats: Sequence[str] | None = None) -> Image.Image:
    """Returns the first frame of an encoded image as 8-bit RGB, as model and code get it (`pixels.as_rgb`).

    Args:
        data: an encoded file.
        formats: Pillow's names of the formats that are tried; None for all.

    Raises:
        OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError: `data` cannot be decoded.
    """
    with Image.open(io.BytesIO(data), formats=None if formats is None else tuple(formats)) as opened:
        opened.load()
        image: Image.Image = as_rgb(opened)
        # an image that needed no conversion is the opened one, which closes with the block
        return image.copy() if image is opened else image


def shown_size(data: bytes) -> tuple[int, int]:
    """Returns width and height of the image that `decode` makes, from the file's head; raises what `decode` does."""
    with Image.open(io.BytesIO(data)) as opened:
        if opened.format == "TIFF":
            return opened.size  # turned by Pillow already
        if opened.format == "PNG" and any(mark in data for mark in _PNG_METADATA):
            opened.load()  # the orientation may stand behind the pixels
        width, height = opened.size
        return (height, width) if orientation(opened) in _TURNED else (width, height)


def pixels_sha256(image: Image.Image) -> str:
    """Returns the SHA-256 (hex) of the size and RGB pixels of an image: equal for equal images of any encoding."""
    rgb: Image.Image = as_rgb(image)
    # with the size, as 2 x 8 and 8 x 2 pixels may have the same bytes
    return hashlib.sha256(f"{rgb.width}x{rgb.height}:".encode() + rgb.tobytes()).hexdigest()
