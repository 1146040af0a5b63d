"""Superlatives (colour of the largest, the leftmost object): one object per colour, measured and compared by code."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from codedance_verl.generators.drawing import (
    SHAPES,
    Box,
    add_noise,
    draw_shape,
    place_boxes,
)
from recipes.cpu_demo.tasks.base import (
    COLOURS,
    HEADER,
    Phrasings,
    Program,
    Split,
    Task,
    choose,
    combination_allowed,
)
from recipes.cpu_demo.tasks.counting import TOLERANCE, shade

KIND = "extremes"
_MARGIN = 5
"""Pixels by which the winner must lead, so that the question has one answer to the eye too."""


_FLAW_KNOWS = COLOURS[:2]
"""Colours that flawed code looks for. It shares all else with right code, so that one token decides."""


@dataclass(frozen=True)
class Relation:
    """A superlative, the expression that measures it on pixel rows `y` and columns `x`, and which end wins."""

    word: str
    measure: str
    pick: str


RELATIONS = (
    Relation("largest", "len(x)", "max"),
    Relation("smallest", "len(x)", "min"),
    Relation("leftmost", "x.mean()", "min"),
    Relation("rightmost", "x.mean()", "max"),
    Relation("highest", "y.mean()", "min"),
    Relation("lowest", "y.mean()", "max"),
)

_PHRASINGS = Phrasings(
    seen=(
        "What colour is the {relation} {shape}?",
        "Which colour is the {relation} {shape}?",
        "What is the colour of the {relation} {shape}?",
        "Name the colour of the {relation} {shape}.",
        "Find the {relation} {shape}. What colour is it?",
        "Of all the {shape}s, what colour is the {relation}?",
        "Which of the {shape}s is the {relation}? Name its colour.",
        "What colour has the {relation} {shape}?",
    ),
    held_out=(
        "Which colour is the {relation} of the {shape}s?",
        "Find the colour of the {relation} {shape}.",
        "Name the {relation} {shape} by its colour.",
    ),
)


def _program(relation: Relation, colours: tuple[str, ...] = COLOURS) -> Program:
    """One cell that measures every one of `colours` that is there and prints the winner."""
    lines = (
        *HEADER,
        "a = np.array(input_image, int)",
        "s = {}",
        f"for c in '{' '.join(colours)}'.split():",
        f"    y, x = (abs(a - ImageColor.getrgb(c)).max(-1) < {TOLERANCE}).nonzero()",
        f"    if len(x): s[c] = {relation.measure}",
        f"print({relation.pick}(s, key=s.get))",
    )
    return ("\n".join(lines),)


def _values(relation: Relation, boxes: list[Box]) -> list[float]:
    """Lengths that the relation compares, in pixels: side for sizes, twice the centre for places; the largest wins."""
    sign = 1 if relation.pick == "max" else -1
    if relation.measure == "len(x)":
        return [sign * (box[2] - box[0]) for box in boxes]
    near, far = (0, 2) if relation.measure == "x.mean()" else (1, 3)
    return [sign * (box[near] + box[far]) / 2 for box in boxes]


def generate(rng: np.random.Generator, split: Split, size: int) -> Task:
    while True:
        first, second = (
            int(rng.integers(len(RELATIONS))),
            int(rng.integers(len(SHAPES))),
        )
        if combination_allowed(split, first, second, every=3):
            break
    relation, shape = RELATIONS[first], SHAPES[second]
    while True:
        colours = [COLOURS[int(i)] for i in rng.permutation(len(COLOURS))[: int(rng.integers(3, 6))]]
        if set(colours) & set(_FLAW_KNOWS):  # flawed code finds something to measure
            break
    while True:
        sides = [int(side) for side in rng.integers(size // 9, size // 4, size=len(colours))]
        boxes = place_boxes(rng, sides, size)
        *_, second_best, best = sorted(_values(relation, boxes))
        if best - second_best >= _MARGIN:
            break
    image = Image.new(
        "RGB",
        (size, size),
        choose(rng, ((255, 255, 255), (200, 200, 200), (40, 40, 40))),
    )
    draw = ImageDraw.Draw(image)
    for colour, box in zip(colours, boxes, strict=True):
        draw_shape(draw, shape, box, shade(rng, colour))
    return Task(
        kind=KIND,
        difficulty="hard",
        question=_PHRASINGS.pick(rng, split, relation=relation.word, shape=shape),
        focus=relation.word,
        answer=colours[int(np.argmax(_values(relation, boxes)))],
        image=add_noise(rng, image, 8),
        right_code=(_program(relation),),
        flawed_code=(_program(relation, _FLAW_KNOWS),),
        guesses=tuple(colours),
    )
