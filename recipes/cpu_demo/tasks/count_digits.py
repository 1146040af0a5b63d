"""Counts tinted handwritten digits: real handwriting, from the digits data that scikit-learn carries."""

from __future__ import annotations

from functools import cache

import numpy as np
from PIL import Image
from scipy.ndimage import label
from sklearn.datasets import load_digits

from codedance_verl.generators.drawing import add_noise, place_boxes
from recipes.cpu_demo.tasks.base import Split, Task, choose
from recipes.cpu_demo.tasks.counting import (
    COUNT_PHRASINGS,
    COUNTS,
    count_flawed_code,
    count_right_code,
    draw_colours_and_counts,
    shade,
)

KIND = "count_digits"
_THINGS = ("digits", "handwritten digits", "figures")
_PAPER = ((255, 255, 255), (240, 235, 220), (225, 230, 235), (30, 30, 30))
_INK = 100
"""Grey level (0 to 255) from which an enlarged pixel counts as ink."""


@cache
def glyphs(split: Split, side: int) -> tuple[tuple[np.ndarray, int], ...]:
    """Handwritten digits as boolean ink masks (side, side) with their values, only those whose ink hangs together.

    The test split sees the last fifth of the 1,797 samples, written by people whom the first four fifths do not show.
    """
    digits = load_digits()
    first_test = len(digits.images) * 4 // 5
    chosen = range(first_test, len(digits.images)) if split.held_out else range(first_test)
    found = []
    for index in chosen:
        grey = Image.fromarray((digits.images[index] * 255 / 16).astype(np.uint8))
        ink = np.asarray(grey.resize((side, side), Image.Resampling.BICUBIC)) > _INK
        if label(ink)[1] == 1:
            found.append((ink, int(digits.target[index])))
    return tuple(found)


def generate(rng: np.random.Generator, split: Split, size: int) -> Task:
    colour, count, distractors = draw_colours_and_counts(rng, split)
    colours = [colour] * count + [name for name, number in distractors for _ in range(number)]
    side = size // 6
    pixels = np.full((size, size, 3), choose(rng, _PAPER), dtype=np.uint8)
    for name, (left, top, right, bottom) in zip(
        colours, place_boxes(rng, [side] * len(colours), size, gap=2), strict=True
    ):
        ink, _ = choose(rng, glyphs(split, side))
        pixels[top:bottom, left:right][ink] = shade(rng, name)
    return Task(
        kind=KIND,
        difficulty="hard",
        question=COUNT_PHRASINGS.pick(rng, split, colour=colour, things=choose(rng, _THINGS)),
        focus=colour,
        answer=str(count),
        image=add_noise(rng, Image.fromarray(pixels), 8),
        right_code=count_right_code(colour),
        flawed_code=count_flawed_code(colour, tuple(name for name, _ in distractors)),
        guesses=COUNTS,
        verb="count",
    )
