"""Parts that all task generators share: the record, splits, seeds, colours and phrasings."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from codedance_verl.generators.choices import COLOURS as COLOURS
from codedance_verl.generators.choices import OPENERS as OPENERS
from codedance_verl.generators.choices import RGB as RGB
from codedance_verl.generators.choices import Phrasings as Phrasings
from codedance_verl.generators.choices import Split as Split
from codedance_verl.generators.choices import choose as choose
from codedance_verl.generators.choices import combination_allowed as combination_allowed
from recipes.cpu_demo.demo_sizes import DEFAULT_SIZE as DEFAULT_SIZE

Difficulty = Literal["easy", "hard"]
Program = tuple[str, ...]
"""Cells run one after the other in one session; the answer follows the last one."""

HEADER = ("import numpy as np", "from PIL import ImageColor", "from scipy.ndimage import label")
"""First lines of every program for a hard question: what is learned from one kind carries over to another."""


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


Generator = Callable[[np.random.Generator, Split, int], Task]
"""Draws one task: random source, split, side of the image in pixels."""


def task_rng(seed: int, split: Split, kind: str, index: int) -> np.random.Generator:
    """The random source of one task, independent of how many others are made and in which order."""
    return np.random.default_rng([seed, zlib.crc32(f"{split}/{kind}".encode()), index])
