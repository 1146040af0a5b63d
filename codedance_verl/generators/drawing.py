"""Placement and drawing of objects on an image."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels, the right and bottom edges not included."""

SHAPES = ("disc", "square", "triangle")

SYMMETRIC_SHAPES = ("disc", "square", "diamond", "ring", "cross")


class DoesNotFit(Exception):
    """The objects found no free place; the caller draws another task."""


def place_boxes(rng: np.random.Generator, sides: list[int], size: int, gap: int = 3) -> list[Box]:
    """Places for square boxes of the given sides, at least `gap` pixels apart and from the edge of the image."""
    # [rows, columns], True where a box or the gap around one is
    taken = np.zeros((size, size), dtype=bool)
    boxes: list[Box] = []
    for side in sides:
        boxes.append(_place_one(rng, side, size, gap, taken))
    return boxes


def _place_one(rng: np.random.Generator, side: int, size: int, gap: int, taken: np.ndarray) -> Box:
    # `integers` below needs a range that is not empty
    if size - side - gap + 1 <= gap:
        raise DoesNotFit
    for _ in range(60):
        left, top = (int(v) for v in rng.integers(gap, size - side - gap + 1, size=2))
        if not taken[top : top + side, left : left + side].any():
            taken[
                max(0, top - gap) : top + side + gap,
                max(0, left - gap) : left + side + gap,
            ] = True
            return (left, top, left + side, top + side)
    raise DoesNotFit


def draw_shape(draw: ImageDraw.ImageDraw, shape: str, box: Box, colour: tuple[int, int, int]) -> None:
    """Draws a disc, square, triangle, diamond, ring or cross that touches all four sides of `box`.

    All but the triangle are symmetric where the sides of the box are odd, so that their middle is that of the box.
    """
    left, top, right, bottom = box[0], box[1], box[2] - 1, box[3] - 1
    if shape == "disc":
        draw.ellipse((left, top, right, bottom), fill=colour)
    elif shape == "square":
        draw.rectangle((left, top, right, bottom), fill=colour)
    elif shape == "triangle":
        draw.polygon([((left + right) // 2, top), (right, bottom), (left, bottom)], fill=colour)
    elif shape == "diamond":
        middle = ((left + right) // 2, (top + bottom) // 2)
        draw.polygon([(middle[0], top), (right, middle[1]), (middle[0], bottom), (left, middle[1])], fill=colour)
    elif shape == "ring":
        draw.ellipse((left, top, right, bottom), outline=colour, width=max(2, (right - left) // 5))
    elif shape == "cross":
        side = right - left + 1
        outside = (side - (side // 3 | 1)) // 2  # of an odd third of the side, which lies in the middle
        draw.rectangle((left + outside, top, right - outside, bottom), fill=colour)
        draw.rectangle((left, top + outside, right, bottom - outside), fill=colour)
    else:
        raise ValueError(f"unknown shape {shape!r}")


def add_noise(rng: np.random.Generator, image: Image.Image, amplitude: int) -> Image.Image:
    """Adds uniform noise of at most `amplitude` grey levels to every channel, as a camera would."""
    # int16: a sum may leave 0 to 255 before it is clipped
    pixels = np.asarray(image.convert("RGB"), dtype=np.int16)
    noise = rng.integers(-amplitude, amplitude + 1, size=pixels.shape, dtype=np.int16)
    return Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8))
