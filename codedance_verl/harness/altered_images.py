"""Alterations of an image: its evidence greyed, moved or swapped, or the whole image replaced."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from codedance_verl.images import decode

Box = tuple[int, int, int, int]
"""Left, top, right and bottom edge in pixels; right and bottom are outside."""

Pixels = NDArray[np.uint8]
"""Image of shape (height, width, 3), RGB, 0 to 255."""

_DARK, _LIGHT = 40, 215
_CORE = 0.6
"""Part of each side of a box, about its middle, that is its core."""

_MARGIN = 4
"""Pixels around a box that tell the colour of its surroundings."""

_BLOCK = 4
"""Side in pixels of the blocks of an image that replaces another."""

_PLACES = 8
"""Places by side that are tried for a region of the same size."""


class Alteration(StrEnum):
    """Change of an image. `GREYED` and `CORE` change no pixel outside of the evidence."""

    GREYED = "greyed"  # the evidence is one grey
    CORE = "core"  # the inner part of the evidence is one grey
    MOVED = "moved"  # the evidence lies elsewhere, the colour of its surroundings in its place
    SWAPPED = "swapped"  # the evidence and another region of its size change places
    NOISE = "noise"  # another image, of random colours, of the same size
    LARGER = "larger"  # another, nearly black image that is larger


LOCAL = (Alteration.GREYED, Alteration.CORE)
OF_EVIDENCE = (*LOCAL, Alteration.MOVED, Alteration.SWAPPED)


def altered_files(images: Sequence[bytes], boxes: Sequence[Box], alteration: Alteration) -> tuple[bytes, ...]:
    """Encoded images (PNG) with the alteration.

    Args:
        images: encoded files. Evidence lies in the first; `NOISE` and `LARGER` replace all of them.
        boxes: evidence in pixels of the image as code gets it, turned by its EXIF orientation.
        alteration: change to make.

    Raises:
        OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError: an image cannot be decoded.
    """
    whole = alteration not in OF_EVIDENCE
    return tuple(
        _encoded(altered(np.asarray(decode(data)), boxes, alteration)) if whole or place == 0 else data
        for place, data in enumerate(images)
    )


def altered(image: Pixels, boxes: Sequence[Box], alteration: Alteration) -> Pixels:
    """Copy of an image with the alteration. Boxes are cut at the edges; those without a pixel are left out."""
    inside = clipped(boxes, image)
    match alteration:
        case Alteration.GREYED:
            return _filled(image, inside)
        case Alteration.CORE:
            return _filled(image, [_core(box) for box in inside])
        case Alteration.MOVED | Alteration.SWAPPED:
            return _exchanged(image, inside, both=alteration is Alteration.SWAPPED)
        case Alteration.NOISE:
            return _blocks(image.shape[0], image.shape[1], brightest=256)
        case Alteration.LARGER:
            # Larger, not smaller: indices that fit the image still do.
            height, width = (side + max(8, side // 10) for side in image.shape[:2])
            return _blocks(height, width, brightest=24)


def _blocks(height: int, width: int, brightest: int) -> Pixels:
    """Image of blocks of random colours, which unlike noise by the pixel is small as a file."""
    shape = (-(-height // _BLOCK), -(-width // _BLOCK), 3)  # rounded up; the surplus is cut off below
    # seeded, so that findings on a reply are the same in every run
    colours = np.random.default_rng(0).integers(0, brightest, shape, dtype=np.uint8)
    return colours.repeat(_BLOCK, axis=0).repeat(_BLOCK, axis=1)[:height, :width]


def clipped(boxes: Sequence[Box], image: Pixels) -> list[Box]:
    """Boxes cut at the edges of the image, without empty ones."""
    height, width = image.shape[:2]
    cut = [(max(left, 0), max(top, 0), min(right, width), min(low, height)) for left, top, right, low in boxes]
    return [box for box in cut if box[0] < box[2] and box[1] < box[3]]


def _encoded(image: Pixels) -> bytes:
    file = io.BytesIO()
    # lossless, as artefacts would reach pixels outside of the evidence; and fast, as the file does not last
    Image.fromarray(image).save(file, "PNG", compress_level=1)
    return file.getvalue()


def _view(image: Pixels, box: Box) -> Pixels:
    left, top, right, bottom = box
    return image[top:bottom, left:right]


def _filled(image: Pixels, boxes: Sequence[Box]) -> Pixels:
    """Copy with boxes of one grey each: the light or the dark one, whichever is farther from what was there."""
    found = image.copy()
    for box in boxes:
        # by the original, since boxes may overlap
        _view(found, box)[:] = _DARK if _view(image, box).mean() > (_DARK + _LIGHT) / 2 else _LIGHT
    return found


def _core(box: Box) -> Box:
    left, top, right, bottom = box
    # rounded down, so that the core of the smallest box has a pixel
    across, down = (int((end - start) * (1 - _CORE) / 2) for start, end in ((left, right), (top, bottom)))
    return left + across, top + down, right - across, bottom - down


def _exchanged(image: Pixels, boxes: Sequence[Box], *, both: bool) -> Pixels:
    """Copy whose boxes lie elsewhere; what was there comes to their place if `both`, else the surroundings' colour."""
    # all boxes are taken from the start: no evidence may move onto other evidence
    found, taken = image.copy(), list(boxes)
    for box in boxes:
        place = _other_place(image, box, taken)
        if place is None:
            # No room for it elsewhere, so its parts change places within it.
            _view(found, box)[:] = _view(image, box)[::-1, ::-1]
            continue
        taken.append(place)
        _view(found, place)[:] = _view(image, box)
        _view(found, box)[:] = _view(image, place) if both else _surroundings(image, box)
    return found


def _other_place(image: Pixels, box: Box, taken: Sequence[Box]) -> Box | None:
    """Region of the same size beside all that are taken whose pixels differ most; None where there is no room."""
    # every second pixel tells enough; int16, as differences of uint8 wrap around
    here = _view(image, box)[::2, ::2].astype(np.int16)
    free = [place for place in _places(image, box) if not any(_meet(place, other) for other in taken)]
    return max(free, key=lambda place: float(np.abs(_view(image, place)[::2, ::2] - here).mean()), default=None)


def _places(image: Pixels, box: Box) -> Iterator[Box]:
    (height, width), across, down = image.shape[:2], box[2] - box[0], box[3] - box[1]
    lefts, tops = (np.linspace(0, end, _PLACES, dtype=int) for end in (width - across, height - down))
    return ((int(left), int(top), int(left) + across, int(top) + down) for top in tops for left in lefts)


def _meet(one: Box, other: Box) -> bool:
    # right and bottom are outside, so boxes that touch do not meet
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _surroundings(image: Pixels, box: Box) -> Any:
    """Median colour of the frame around a box, shape (3,)."""
    left, top, right, bottom = box
    # a slice may end past the image, but a negative start would count from its end
    around = (max(left - _MARGIN, 0), max(top - _MARGIN, 0), right + _MARGIN, bottom + _MARGIN)
    outside = np.ones(_view(image, around).shape[:2], dtype=bool)
    outside[top - around[1] : bottom - around[1], left - around[0] : right - around[0]] = False
    frame = _view(image, around)[outside]
    # (pixels, 3) to (3,); the median, which a line across the frame does not tint
    return np.median(frame, axis=0).astype(np.uint8) if len(frame) else _DARK
