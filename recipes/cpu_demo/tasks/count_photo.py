"""Counts coloured balls, tiles or flags that lie on a real photograph."""

from __future__ import annotations

import numpy as np
from PIL import ImageDraw

from codedance_verl.generators.drawing import add_noise, draw_shape, place_boxes
from recipes.cpu_demo.tasks.base import Split, Task, choose
from recipes.cpu_demo.tasks.counting import (
    COUNT_PHRASINGS,
    COUNTS,
    count_flawed_code,
    count_right_code,
    draw_colours_and_counts,
    shade,
)
from recipes.cpu_demo.tasks.photos import photo_crop

KIND = "count_photo"
_THINGS = (("disc", "balls"), ("square", "tiles"), ("triangle", "flags"))


def generate(rng: np.random.Generator, split: Split, size: int) -> Task:
    colour, count, distractors = draw_colours_and_counts(rng, split)
    shape, things = choose(rng, _THINGS)
    colours = [colour] * count + [name for name, number in distractors for _ in range(number)]
    image = photo_crop(rng, split, size)
    draw = ImageDraw.Draw(image)
    sides = [int(side) for side in rng.integers(size // 10, size // 6, size=len(colours))]
    for name, box in zip(colours, place_boxes(rng, sides, size), strict=True):
        draw_shape(draw, shape, box, shade(rng, name))
    return Task(
        kind=KIND,
        difficulty="hard",
        question=COUNT_PHRASINGS.pick(rng, split, colour=colour, things=things),
        focus=colour,
        answer=str(count),
        image=add_noise(rng, image, 8),
        right_code=count_right_code(colour),
        flawed_code=count_flawed_code(colour, tuple(name for name, _ in distractors)),
        guesses=COUNTS,
        verb="count",
    )
