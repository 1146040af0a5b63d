"""Output of a call in the form in which replays of it are compared: text without what differs by chance, pixels."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from codedance_verl.types import Execution, RenderedImage

# as of `<Figure object at 0x7f3a5c12>`; shorter hexadecimal numbers are results
_ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{6,}\b")
_VISIBLE = 16
"""Difference of a channel, 0 to 255, that is no artefact of resizing or of a JPEG file."""

_FEWEST, _LEAST_PART = 16, 0.05
"""Differing pixels that make a difference: this many, or this part of a small image."""

_LIKE_THE_INPUT = 3.0
"""Mean difference of channels up to which an image is one that was known before, in another size."""


@dataclass(frozen=True)
class Output:
    """Output of a call.

    Attributes:
        text: normalised standard output, and the error's class and message where it failed.
        images: those that it displayed, as the sandbox encoded them.
        succeeded: the code ran to its end.
    """

    text: str
    images: tuple[RenderedImage, ...]
    succeeded: bool


def output_of(execution: Execution) -> Output:
    """Output of an execution."""
    text = normalised(execution.stdout)
    if execution.error is not None:
        text += normalised(f"\n{execution.error.kind}: {execution.error.message}")
    return Output(text, execution.images, execution.succeeded)


def normalised(text: str) -> str:
    """Text without addresses of objects, blanks at the ends of lines and empty lines around it."""
    # Line by line: an expression for blanks at the end of a line is quadratic in a long run of them.
    return "\n".join(map(str.rstrip, _ADDRESS.sub("0x", text).split("\n"))).strip("\n")


def pixels(image: RenderedImage) -> NDArray[np.uint8]:
    """Pixels of a displayed image, shape (height, width, 3), 0 to 255. Images of the pool are checked: none fails."""
    # made by code of a model: Pillow's other decoders are not to see it
    with Image.open(io.BytesIO(image.png), formats=("PNG",)) as opened:
        return np.asarray(opened.convert("RGB"))


def images_differ(one: RenderedImage, other: RenderedImage) -> bool:
    """True where a reader can see a difference: another size, or enough pixels that differ by more than an artefact."""
    if one.sha256 == other.sha256:
        return False
    if (one.width, one.height) != (other.width, other.height):
        return True
    return _visible(pixels(one), pixels(other))


def _visible(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> bool:
    # int16, as differences of uint8 wrap around; (height, width, 3) to (height, width)
    apart = np.abs(one.astype(np.int16) - other).max(axis=2) > _VISIBLE
    return bool(apart.sum() >= max(1, min(_FEWEST, _LEAST_PART * apart.size)))


def shows_nothing_new(image: RenderedImage, known: Sequence[NDArray[np.uint8]]) -> bool:
    """True for a copy of a known image as a whole, of its size or smaller: it holds nothing that the model had not."""
    return any(_is_copy(image, whole) for whole in known)


def _is_copy(image: RenderedImage, whole: NDArray[np.uint8]) -> bool:
    height, width = whole.shape[:2]
    # One pixel of rounding in either side is the same shape.
    same_shape = abs(image.width * height - image.height * width) <= max(width, height)
    if image.width > width or not same_shape:
        return False
    shown = pixels(image)
    if shown.shape == whole.shape:
        # Marks drawn on it are new, however small.
        return not _visible(shown, whole)
    smaller = Image.fromarray(whole).resize((image.width, image.height), Image.Resampling.BOX)
    # the mean, since ways of scaling differ in single pixels at edges
    return float(np.abs(shown.astype(np.int16) - np.asarray(smaller)).mean()) <= _LIKE_THE_INPUT
