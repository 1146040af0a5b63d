"""Splits, colours, phrasings and random choices that all generators share, those of the demo too."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

import numpy as np

T = TypeVar("T")

COLOURS = ("red", "green", "blue", "yellow", "orange", "purple")
"""Names that Pillow's `ImageColor` knows, so that code can turn the word of the question into a colour."""

RGB: dict[str, tuple[int, int, int]] = {
    "red": (255, 0, 0),
    "green": (0, 128, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "orange": (255, 165, 0),
    "purple": (128, 0, 128),
}


class Split(StrEnum):
    """Part of a data set. The test part has phrasings, and in the demo also combinations, photographs and handwriting,
    that the other two never show."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"

    @property
    def held_out(self) -> bool:
        return self is Split.TEST


@dataclass(frozen=True)
class Phrasings:
    """Question templates with `{named}` fields; `held_out` ones appear in the test split alone."""

    seen: tuple[str, ...]
    held_out: tuple[str, ...]

    def pick(self, rng: np.random.Generator, split: Split, **fields: object) -> str:
        template = choose(rng, self.held_out if split.held_out else self.seen)
        opener = choose(rng, OPENERS.held_out if split.held_out else OPENERS.seen)
        return opener + template.format(**fields)

    def pick_alone(self, rng: np.random.Generator, split: Split, **fields: object) -> str:
        """A phrasing without a sentence before it: those speak of one picture."""
        return choose(rng, self.held_out if split.held_out else self.seen).format(**fields)


OPENERS = Phrasings(
    seen=("", "", "", "Look at the picture. ", "Look closely. ", "Here is a picture. "),
    held_out=("", "", "Look at the picture closely. ", "Take a look. "),
)


def choose(rng: np.random.Generator, options: tuple[T, ...]) -> T:
    """One of `options`, which keeps its own type (numpy's `choice` would turn it into an array scalar)."""
    return options[int(rng.integers(len(options)))]


def combination_allowed(split: Split, first: int, second: int, every: int = 5) -> bool:
    """Tells training pairs of attributes, given by their indices, from those of the test split.

    One pair in `every`, spread so that each single attribute stays in training, belongs to the test split alone, and
    the test split holds nothing else. `every` must not exceed the number of values of the second attribute by much,
    or some first attributes have no pair to test.
    """
    return ((first * 2 + second) % every == 0) == split.held_out


def shade(rng: np.random.Generator, colour: str) -> tuple[int, int, int]:
    """The colour with each channel moved a little, within the tolerance that right code allows."""
    red, green, blue = RGB[colour]
    jitter = rng.integers(-14, 15, size=3)
    return (
        int(np.clip(red + jitter[0], 0, 255)),
        int(np.clip(green + jitter[1], 0, 255)),
        int(np.clip(blue + jitter[2], 0, 255)),
    )
