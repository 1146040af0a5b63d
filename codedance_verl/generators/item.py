"""Questions as generators make them: images, exact answer, where the evidence lies, and how hard it is to read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from PIL import Image

from codedance_verl.generators.drawing import Box


@dataclass(frozen=True)
class Region:
    """Evidence: a box in pixels of the image number `image`, from 0."""

    label: str
    box: Box
    image: int = 0


@dataclass(frozen=True)
class Point:
    """Named place in pixels of the first image."""

    label: str
    x: float
    y: float


@dataclass(frozen=True)
class Item:
    """One question with its answer, both exact by construction.

    Attributes:
        question: text without image placeholders.
        answer: the one right answer.
        images: RGB, in the order of the question.
        regions: evidence. An answer that looks at none of it is a guess.
        needs_code: True where by the rule of the kind the eye does not do, for a model that sees `view_pixels`.
        points: named places of the first image, if there are any.
        measures: what the dials change, as measured on this item; the keys end with a unit.
    """

    question: str
    answer: str
    images: tuple[Image.Image, ...]
    regions: tuple[Region, ...]
    needs_code: bool
    points: tuple[Point, ...] = ()
    measures: Mapping[str, float] = field(default_factory=dict)


def view_scale(width: int, height: int, view_pixels: int) -> float:
    """Side of the image that a model sees over that of the whole one, 0 to 1, where it sees at most `view_pixels`."""
    return min(1.0, math.sqrt(view_pixels / (width * height)))
