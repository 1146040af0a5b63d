"""Counts drawn objects of a colour, or of a shape, among distractors."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from recipes.cpu_demo.tasks.base import COLOURS, Phrasings, Program, Split, Task, choose, combination_allowed
from recipes.cpu_demo.tasks.counting import (
    COUNT_PHRASINGS,
    COUNTS,
    MAX_COUNT,
    count_flawed_code,
    count_right_code,
    draw_colours_and_counts,
    shade,
)
from recipes.cpu_demo.tasks.drawing import SHAPES, add_noise, draw_shape, place_boxes

KIND = "count_shapes"
_PAPER = ((255, 255, 255), (220, 220, 220), (20, 20, 20))

_FILLED = {"disc": "0.65 < r.extent < 0.93", "square": "r.extent > 0.93", "triangle": "r.extent < 0.65"}
"""Share of its bounding box that a shape fills; it identifies the shape."""

_SHAPE_PHRASINGS = Phrasings(
    seen=(
        "How many {shape}s are there?",
        "How many {shape}s do you see?",
        "Count the {shape}s.",
        "What is the number of {shape}s?",
        "Count every {shape}, whatever its colour.",
    ),
    held_out=("How many of the shapes are {shape}s?", "Give the number of {shape}s.", "Count all {shape}s."),
)


def generate(rng: np.random.Generator, split: Split, size: int) -> Task:
    return _by_colour(rng, split, size) if rng.random() < 0.5 else _by_shape(rng, split, size)


def _by_colour(rng: np.random.Generator, split: Split, size: int) -> Task:
    colour, count, distractors = draw_colours_and_counts(rng, split)
    shape = choose(rng, SHAPES)
    objects = [(shape, colour)] * count + [(shape, name) for name, number in distractors for _ in range(number)]
    return Task(
        kind=KIND,
        difficulty="hard",
        question=COUNT_PHRASINGS.pick(rng, split, colour=colour, things=f"{shape}s"),
        focus=colour,
        answer=str(count),
        image=_draw(rng, objects, size),
        right_code=count_right_code(colour),
        flawed_code=count_flawed_code(colour, tuple(name for name, _ in distractors)),
        guesses=COUNTS,
    )


def _by_shape(rng: np.random.Generator, split: Split, size: int) -> Task:
    while True:
        first, count = int(rng.integers(len(SHAPES))), int(rng.integers(1, MAX_COUNT + 1))
        if combination_allowed(split, first, count, every=3):
            break
    shape = SHAPES[first]
    others = tuple(name for name in SHAPES if name != shape)
    shapes = [shape] * count + [choose(rng, others) for _ in range(int(rng.integers(2, 5)))]
    return Task(
        kind=KIND,
        difficulty="hard",
        question=_SHAPE_PHRASINGS.pick(rng, split, shape=shape),
        focus=shape,
        answer=str(count),
        image=_draw(rng, [(name, choose(rng, COLOURS)) for name in shapes], size),
        right_code=(_program(_FILLED[shape]),),
        flawed_code=(_program(_FILLED[others[0]]), _program(_FILLED[others[1]]), _program("r.area > 20")),
        guesses=COUNTS,
    )


def _draw(rng: np.random.Generator, objects: list[tuple[str, str]], size: int) -> Image.Image:
    image = Image.new("RGB", (size, size), choose(rng, _PAPER))
    draw = ImageDraw.Draw(image)
    sides = [int(side) for side in rng.integers(size // 9, size // 6, size=len(objects))]
    for (shape, colour), box in zip(objects, place_boxes(rng, sides, size), strict=True):
        draw_shape(draw, shape, box, shade(rng, colour))
    return add_noise(rng, image, 8)


def _program(condition: str) -> Program:
    lines = (
        "import numpy as np",
        "from skimage.measure import label, regionprops",
        "a = np.array(input_image, int)",
        "m = abs(a - a[0, 0]).max(-1) > 60",
        f"print(sum({condition} for r in regionprops(label(m))))",
    )
    return ("\n".join(lines),)
