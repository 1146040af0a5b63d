"""Images of a question: their check, their decoding, and what a session has of them."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

from .pixels import as_rgb


@dataclass(frozen=True)
class InputImage:
    """Image of a question.

    Attributes:
        rgb: a PIL image of mode RGB.
        data: its file, as it came.
        form: Pillow's name of the file's format (`PNG`), where the file shows just the pixels of `rgb`; else empty.
    """

    rgb: Any
    data: bytes | memoryview
    form: str


def check(data: bytes) -> None:
    """Checks that `data` is an image, as far as that goes without decoding it. Raises `ValueError` if not."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            # Reads headers and checksums; pixels are decoded after the host has its answer.
            image.verify()
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{len(data)} bytes that are no image: {error}") from None


def decode_without_threads(data: bytes) -> None:
    """Has the one decoder of Pillow's that starts threads, AVIF's, start none: this process may have no other."""
    if data[4:8] == b"ftyp":
        from PIL import AvifImagePlugin

        AvifImagePlugin.DEFAULT_MAX_THREADS = 1


def decode(data: bytes | memoryview) -> InputImage:
    """Decodes a file; raises what Pillow does."""
    from PIL import Image

    opened = Image.open(io.BytesIO(data))
    opened.load()
    rgb = as_rgb(opened)
    return InputImage(rgb, data, (opened.format or "") if rgb is opened else "")


def largest_file(image: InputImage) -> int:
    """Returns a bound of the bytes of an image's files: as it was sent, or a PNG that does not shrink."""
    width, height = image.rgb.size
    # Rows have a filter byte each; 1 % and 64 KiB are more than zlib and PNG put around stored data.
    return int(1.01 * max((3 * width + 1) * height, len(image.data))) + (1 << 16)
