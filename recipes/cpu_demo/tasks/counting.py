"""Code and phrasings that the counting tasks share: find the pixels of a colour, count the connected regions."""

from __future__ import annotations

import numpy as np

from codedance_verl.generators.choices import shade as shade
from recipes.cpu_demo.tasks.base import (
    COLOURS,
    HEADER,
    Phrasings,
    Program,
    Split,
    choose,
    combination_allowed,
)

TOLERANCE = 40
"""Largest difference per channel, in grey levels, at which a pixel still counts as being of a colour."""

MAX_COUNT = 6

COUNTS = tuple(str(n) for n in range(1, MAX_COUNT + 1))

COUNT_PHRASINGS = Phrasings(
    seen=(
        "How many {colour} {things} are there?",
        "How many {colour} {things} do you see?",
        "Count the {colour} {things}.",
        "What is the number of {colour} {things}?",
        "Give the number of {colour} {things} in the picture.",
        "There are some {things}. How many are {colour}?",
        "Count all {things} that are {colour}.",
        "How many {things} are {colour}?",
        "Of all the {things}, how many are {colour}?",
        "What is the number of {colour} ones among the {things}?",
        "In the picture there are {things}. Count the {colour} ones.",
    ),
    held_out=(
        "How many of the {things} are {colour}?",
        "Count the {things} that are {colour} in the picture.",
        "What is the number of {things} that are {colour}?",
        "How many {colour} {things} are in the picture?",
    ),
)


def count_program(colour: str, last: str = "print(label(m)[1])", *, mask: str | None = None) -> Program:
    """One cell that marks the pixels of a colour and ends with the line `last`."""
    mask = mask or f"m = abs(a - ImageColor.getrgb('{colour}')).max(-1) < {TOLERANCE}"
    lines = (
        *HEADER,
        "a = np.array(input_image, int)",
        mask,
        last,
    )
    return ("\n".join(lines),)


def count_right_code(colour: str) -> tuple[Program, ...]:
    return (count_program(colour),)


def count_flawed_code(colour: str, others: tuple[str, ...]) -> tuple[Program, ...]:
    """Off by one in either direction, a colour that was not asked for, every non-background region."""
    return (
        count_program(colour, "print(label(m)[1] - 1)"),
        count_program(colour, "print(label(m)[1] + 1)"),
        count_program(others[0]),
        count_program(others[-1]),
    )


def draw_colours_and_counts(rng: np.random.Generator, split: Split) -> tuple[str, int, tuple[tuple[str, int], ...]]:
    """A colour, how many objects have it, and one or two distractor colours with their numbers.

    The pair (colour, number) is what the test split holds out.
    """
    while True:
        first, count = (
            int(rng.integers(len(COLOURS))),
            int(rng.integers(1, MAX_COUNT + 1)),
        )
        if combination_allowed(split, first, count):
            break
    others = [c for c in COLOURS if c != COLOURS[first]]
    chosen = [others[int(i)] for i in rng.permutation(len(others))[: int(rng.integers(1, 3))]]
    return COLOURS[first], count, tuple((c, choose(rng, (1, 2, 3))) for c in chosen)
