"""Conversion of a peer's answer to the record that the measurements use."""

from __future__ import annotations

import asyncio
import hashlib
import io
from collections.abc import Sequence

from PIL import Image

from codedance_verl.types import Execution, ExecutionError, ExecutionStatus, RenderedImage


class Unavailable(Exception):
    """A peer cannot be had on this machine; the message says why."""


async def answer(stdout: str, images: Sequence[bytes], error: str = "") -> Execution:
    """The record of one call. Images are decoded, in a thread, as every caller of a tool must do who then uses them."""
    if error:
        return Execution(ExecutionStatus.ERROR, stdout, ExecutionError("Error", error[-500:], error[-2000:]))
    shown = await asyncio.to_thread(lambda: tuple(decode(png) for png in images)) if images else ()
    return Execution(ExecutionStatus.OK if stdout or shown else ExecutionStatus.NO_OUTPUT, stdout, None, shown)


def decode(png: bytes) -> RenderedImage:
    """Decodes in full and hashes, as the project's pool does with what comes back."""
    with Image.open(io.BytesIO(png), formats=("PNG",)) as image:
        image.load()
        return RenderedImage(hashlib.sha256(png).hexdigest(), image.width, image.height, png)
