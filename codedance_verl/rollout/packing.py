"""Images of a group on their way through verl's queue: each prepared once, packed as bytes, off the event loop."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from PIL import Image

from codedance_verl.rollout.agent_loop import RESIZED_IMAGES
from codedance_verl.types import IMAGE_PLACEHOLDER
from codedance_verl.verl_compat.pixel_bytes import PatchLayout, joined, pack, without_pixels

Prepare = Callable[[Image.Image], dict[str, Any]]
"""Preparation of one image: its model inputs, as the processor makes them."""


class GroupImages:
    """Model inputs of the rollouts of one prompt; an image that several of them hold, the question's, is prepared once.

    `images`: those of each rollout, in order. An image is the same by identity: rollouts share their resized images.
    """

    def __init__(self, images: Sequence[Sequence[Image.Image]], prepare: Prepare, layout: PatchLayout | None) -> None:
        self._prepare, self._layout = prepare, layout
        self._holders = Counter(id(image) for held in images for image in held)
        self._shared: dict[tuple[int, bool], dict[str, Any]] = {}

    async def inputs(self, images: Sequence[Image.Image], pixels: bool = True) -> dict[str, Any] | None:
        """Returns the inputs of one rollout, made in a thread; without pixels where nothing is trained on it."""
        return await asyncio.to_thread(self.made, images, pixels)

    def made(self, images: Sequence[Image.Image], pixels: bool = True) -> dict[str, Any] | None:
        """Returns the inputs of one rollout; None without an image: verl makes the inputs of text alone."""
        if not images:
            return None
        return joined([self._of(image, pixels) for image in images])

    def _of(self, image: Image.Image, pixels: bool) -> dict[str, Any]:
        if (known := self._shared.get((id(image), pixels))) is not None:
            return known
        prepared = self._prepare(image)
        made = pack(prepared, self._layout) if pixels else without_pixels(prepared)
        if self._holders[id(image)] > 1:  # an image of one rollout alone is let go with it
            self._shared[id(image), pixels] = made
        return made


def images_of(output: Any) -> list[Image.Image]:
    """Returns the images of an `AgentLoopOutput`, in order."""
    found: list[Image.Image] = (output.multi_modal_data or {}).get("images") or []
    return found


def without_images(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of a record, every image in its messages replaced by a placeholder.

    Else each of the n rollouts of a prompt would carry them all through the queue, where no one reads them.
    """
    found = {name: value for name, value in fields.items() if name != RESIZED_IMAGES}
    for name in ("prompt", "raw_prompt"):
        if name in fields:
            found[name] = [{**message, "content": _text_of(message["content"])} for message in fields[name]]
    return found


def _text_of(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(IMAGE_PLACEHOLDER if part["type"] == "image" else part["text"] for part in content)
