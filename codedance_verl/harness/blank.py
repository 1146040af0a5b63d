"""Blank images: what a model answers without seeing the picture is a bound for what seeing it adds."""

from __future__ import annotations

import io

from PIL import Image

from codedance_verl.images import shown_size

GREY = (128, 128, 128)


def blank_like(data: bytes) -> bytes:
    """PNG of one grey, as large as an encoded image is shown. Raises OSError or ValueError: it is no image."""
    buffer = io.BytesIO()
    # the same size, hence as many tokens: the content alone differs
    Image.new("RGB", shown_size(data), GREY).save(buffer, "PNG")
    return buffer.getvalue()
