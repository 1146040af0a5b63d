"""Objects that differ in colour or shape, so that words name each one, laid on a plain ground."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from codedance_verl.generators.choices import COLOURS, choose, shade
from codedance_verl.generators.drawing import SYMMETRIC_SHAPES, Box, draw_shape, place_boxes

GROUNDS = ((255, 255, 255), (215, 215, 215), (40, 40, 40), (95, 95, 95))
"""Greys, from which all colours of objects differ by more than their shades do."""

MOST_THINGS = len(COLOURS) * len(SYMMETRIC_SHAPES)

NAMING = f" Name its colour and shape: {', '.join(SYMMETRIC_SHAPES[:-1])} or {SYMMETRIC_SHAPES[-1]}."
"""Words that a free answer is compared with; without them a right one may use others, such as circle for disc."""

Look = tuple[str, str]
"""Colour and shape."""


@dataclass(frozen=True)
class Thing:
    """Object with its box in pixels, whose sides are odd."""

    look: Look
    box: Box

    @property
    def name(self) -> str:
        return " ".join(self.look)

    @property
    def middle(self) -> tuple[int, int]:
        """Column and row of the middle pixel."""
        return (self.box[0] + self.box[2] - 1) // 2, (self.box[1] + self.box[3] - 1) // 2


def draw_looks(rng: np.random.Generator, count: int) -> list[Look]:
    """`count` different looks, at most `MOST_THINGS`."""
    # without repetition: colour and shape are the name of an object
    chosen = rng.permutation(MOST_THINGS)[:count].tolist()
    return [(COLOURS[index % len(COLOURS)], SYMMETRIC_SHAPES[index // len(COLOURS)]) for index in chosen]


def lay(
    rng: np.random.Generator, looks: Sequence[Look], side: int, sizes: tuple[int, int]
) -> tuple[Image.Image, list[Thing]]:
    """Square image of `side` pixels with objects whose sides lie between both `sizes`, in pixels.

    Raises DoesNotFit where they found no free places.
    """
    image = Image.new("RGB", (side, side), choose(rng, GROUNDS))
    draw = ImageDraw.Draw(image)
    # odd sides: the middle of an object is a whole pixel
    sides = [int(value) | 1 for value in rng.integers(sizes[0], sizes[1] + 1, size=len(looks))]
    things = [Thing(look, box) for look, box in zip(looks, place_boxes(rng, sides, side), strict=True)]
    for thing in things:
        draw_shape(draw, thing.look[1], thing.box, shade(rng, thing.look[0]))
    return image, things
