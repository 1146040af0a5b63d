"""Faint tints under noise: a board of squares of one colour, but for some, whose mean alone shows the difference.

The noise of a square adds up to nothing in every channel, so that the mean of a square is its colour exactly. It never
reaches 0 or 255.
"""

from __future__ import annotations

import string
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from codedance_verl.generators.choices import Phrasings, Split, choose
from codedance_verl.generators.dials import Dial, Dials, Kind
from codedance_verl.generators.drawing import Box
from codedance_verl.generators.item import Item, Region
from codedance_verl.generators.lettering import write_text

NAME = "noisy_colour"

TINTS = {"red": (2, -1, -1), "green": (-1, 2, -1), "blue": (-1, -1, 2)}
"""Halves of the contrast by which each channel of a tinted square differs."""

_GAP, _HEAD, _TEXT = 4, 30, 18
_MOST_COUNTED = 6

_PHRASINGS = {
    "odd": Phrasings(
        seen=(
            "One square has another colour than all others. Which one? Answer with its letter and number, such as B2.",
            "All squares but one have the same colour. Name the odd one by its letter and number, such as B2.",
        ),
        held_out=("Which square differs in colour from the rest? Give its letter and number, such as B2.",),
    ),
    "tint": Phrasings(
        seen=(
            "One square is a little redder, greener or bluer than the others. Which tint does it have: red, green or "
            "blue?",
            "A single square has another tint than the rest. Is it red, green or blue?",
        ),
        held_out=("Name the tint of the one square that differs from the others: red, green or blue.",),
    ),
    "count": Phrasings(
        seen=(
            "How many squares are a little more {tint} than the rest?",
            "Count the squares that are a little more {tint} than the rest.",
        ),
        held_out=("What is the number of squares that have more {tint} in them than the others?",),
    ),
}


def cell_name(index: int, cells: int) -> str:
    """Letter of the column and number of the row of a square, numbered row by row."""
    return f"{string.ascii_uppercase[index % cells]}{index // cells + 1}"


def cell_box(index: int, cells: int, size: int) -> Box:
    """Box of a square of `size` pixels."""
    left = _HEAD + (index % cells) * (size + _GAP)
    top = _HEAD + (index // cells) * (size + _GAP)
    return left, top, left + size, top + size


def _noise(rng: np.random.Generator, squares: int, size: int, amplitude: int) -> np.ndarray:
    """Noise [squares, size, size, 3] in grey levels, at most `amplitude`; it sums to 0 in each channel of a square."""
    # every value comes with its negative: the sum is 0 without a correction that would leave the range
    half = rng.integers(-amplitude, amplitude + 1, size=(squares, size * size // 2, 3), dtype=np.int16)
    both = np.concatenate([half, -half], axis=1)
    # one order for all squares: it takes the most of the time, and no square stands on another
    shuffled: np.ndarray = both[:, rng.permutation(size * size)].reshape(squares, size, size, 3)
    return shuffled


def _pixels(rng: np.random.Generator, tinted: Sequence[int], tint: str, dials: Dials) -> np.ndarray:
    """Squares [squares, size, size, 3] of a common colour, the tinted ones moved by the contrast."""
    cells, amplitude = dials["cells"], dials["noise"]
    contrast = dials["contrast"] // 2 * 2
    # so far from 0 and 255 that no pixel is cut off, which would move the mean
    reach = amplitude + contrast
    base = rng.integers(reach, 256 - reach, size=3)
    colours = np.tile(base, (cells * cells, 1))
    colours[list(tinted)] += np.array(TINTS[tint]) * contrast // 2
    # [squares, 1, 1, 3] + [squares, size, size, 3]
    pixels: np.ndarray = colours[:, None, None, :] + _noise(rng, cells * cells, dials["size"] // 2 * 2, amplitude)
    return pixels.astype(np.uint8)


def _board(pixels: np.ndarray, cells: int) -> Image.Image:
    size = pixels.shape[1]
    image = Image.new("RGB", (_HEAD + cells * (size + _GAP),) * 2, (255, 255, 255))
    for index, square in enumerate(pixels):
        image.paste(Image.fromarray(square), cell_box(index, cells, size)[:2])
    draw = ImageDraw.Draw(image)
    for place in range(cells):
        middle = _HEAD + place * (size + _GAP) + size // 2
        write_text(draw, string.ascii_uppercase[place], (middle, _HEAD // 2), _TEXT, (0, 0, 0))
        write_text(draw, str(place + 1), (_HEAD // 2, middle), _TEXT, (0, 0, 0))
    return image


def draw(rng: np.random.Generator, split: Split, dials: Dials, view_pixels: int) -> Item:
    cells, size = dials["cells"], dials["size"] // 2 * 2
    form, tint = choose(rng, tuple(_PHRASINGS)), choose(rng, tuple(TINTS))
    # a tint of half of the squares or more would leave open which colour is the common one
    count = int(rng.integers(1, min(_MOST_COUNTED, (cells * cells - 1) // 2) + 1)) if form == "count" else 1
    tinted = sorted(rng.permutation(cells * cells)[:count].tolist())
    answer = {"odd": cell_name(tinted[0], cells), "tint": tint, "count": str(count)}[form]
    return Item(
        question=_PHRASINGS[form].pick(rng, split, tint=tint),
        answer=answer,
        images=(_board(_pixels(rng, tinted, tint, dials), cells),),
        regions=tuple(Region(cell_name(index, cells), cell_box(index, cells, size)) for index in tinted),
        # where the noise is stronger, single pixels of both colours overlap
        needs_code=dials["contrast"] < dials["noise"],
        measures={"contrast_levels": dials["contrast"] // 2 * 2, "noise_levels": dials["noise"]},
    )


KIND = Kind(
    NAME,
    (
        Dial("cells", "squares along a side", (3, 4, 5, 6, 8), 2, 12),
        Dial("size", "side of a square in pixels, an even number", (96, 80, 72, 60, 48), 20, 256),
        Dial("contrast", "difference of the tint in grey levels, an even number", (60, 36, 20, 12, 8), 2, 60),
        Dial("noise", "largest noise in grey levels", (10, 24, 36, 48, 60), 0, 60),
    ),
    draw,
)
