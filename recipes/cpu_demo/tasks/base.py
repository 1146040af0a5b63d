"""Parts that all task generators share: the record, splits, seeds, colours and phrasings."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, TypeVar

import numpy as np
from PIL import Image

from recipes.cpu_demo.demo_sizes import DEFAULT_SIZE as DEFAULT_SIZE

T = TypeVar("T")

Difficulty = Literal["easy", "hard"]
Program = tuple[str, ...]
"""Cells run one after the other in one session; the answer follows the last one."""

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


HEADER = ("import numpy as np", "from PIL import ImageColor", "from scipy.ndimage import label")
"""First lines of every program for a hard question: what is learned from one kind carries over to another."""


class Split(StrEnum):
    """Test images use phrasings, combinations, photographs and handwriting that the other two never show."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"

    @property
    def held_out(self) -> bool:
        return self is Split.TEST


BEFORE_CODE = ("I use code to {verb} {focus}.", "Code can {verb} {focus}.")
"""The verb decides on the program: a kind that was only guessed at can so borrow that of another one."""


AT_ONCE = ("I can see this.", "This is easy to see.")


@dataclass(frozen=True)
class Task:
    """One question about one image, with code that answers it and code that plausibly fails to.

    `right_code` programs are checked to print `answer` (for `look`: to show where it can be seen).
    `focus` is the word or two of the question on which the code depends.
    `flawed_code` programs run, and mostly lead elsewhere. `guesses` are answers somebody who did not look could give.
    """

    kind: str
    difficulty: Difficulty
    question: str
    focus: str
    answer: str
    image: Image.Image
    right_code: tuple[Program, ...]
    flawed_code: tuple[Program, ...]
    guesses: tuple[str, ...]
    answer_is_printed: bool = True
    """False where the last observation is an image to be looked at, or where no code is needed."""
    verb: str = "find"
    """What code does to the focus, as the thought before it says."""
    before_code: tuple[str, ...] = BEFORE_CODE
    """Thoughts before a call, with the fields `verb` and `focus`."""
    at_once: tuple[str, ...] = AT_ONCE
    """Thoughts before an answer without code."""


@dataclass(frozen=True)
class Phrasings:
    """Question templates with `{named}` fields; `held_out` ones appear in the test split alone."""

    seen: tuple[str, ...]
    held_out: tuple[str, ...]

    def pick(self, rng: np.random.Generator, split: Split, **fields: object) -> str:
        template = choose(rng, self.held_out if split.held_out else self.seen)
        opener = choose(rng, OPENERS.held_out if split.held_out else OPENERS.seen)
        return opener + template.format(**fields)


OPENERS = Phrasings(
    seen=("", "", "", "Look at the picture. ", "Look closely. ", "Here is a picture. "),
    held_out=("", "", "Look at the picture closely. ", "Take a look. "),
)


Generator = Callable[[np.random.Generator, Split, int], Task]
"""Draws one task: random source, split, side of the image in pixels."""


def choose(rng: np.random.Generator, options: tuple[T, ...]) -> T:
    """One of `options`, which keeps its own type (numpy's `choice` would turn it into an array scalar)."""
    return options[int(rng.integers(len(options)))]


def task_rng(seed: int, split: Split, kind: str, index: int) -> np.random.Generator:
    """The random source of one task, independent of how many others are made and in which order."""
    return np.random.default_rng([seed, zlib.crc32(f"{split}/{kind}".encode()), index])


def combination_allowed(split: Split, first: int, second: int, every: int = 5) -> bool:
    """Tells training pairs of attributes, given by their indices, from those of the test split.

    One pair in `every`, spread so that each single attribute stays in training, belongs to the test split alone, and
    the test split holds nothing else. `every` must not exceed the number of values of the second attribute by much,
    or some first attributes have no pair to test.
    """
    return ((first * 2 + second) % every == 0) == split.held_out
