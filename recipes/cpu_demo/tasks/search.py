"""Visual search: a handwritten digit too small to read at first; code crops and enlarges, the answer is seen there."""

from __future__ import annotations

import numpy as np
from PIL import Image

from recipes.cpu_demo.tasks.base import Phrasings, Split, Task, choose, combination_allowed
from recipes.cpu_demo.tasks.count_digits import glyphs
from recipes.cpu_demo.tasks.photos import photo_crop

KIND = "search"
_SCALE = 4
"""The image is this many times larger than what the model's vision sees of it, so that only a crop shows detail."""

_PLACES = (
    "top left",
    "top middle",
    "top right",
    "middle left",
    "centre",
    "middle right",
    "bottom left",
    "bottom middle",
    "bottom right",
)
"""The cells of a three by three grid, row by row."""

_PHRASINGS = Phrasings(
    seen=(
        "Which digit is written on the card at the {place}?",
        "A small card lies at the {place}. Which digit is on it?",
        "Read the digit on the {place} card.",
    ),
    held_out=("What does the card at the {place} say?", "Which digit does the {place} card show?"),
)


def generate(rng: np.random.Generator, split: Split, size: int) -> Task:
    while True:
        place, digit = int(rng.integers(len(_PLACES))), int(rng.integers(10))
        if combination_allowed(split, place, digit):
            break
    empty = [cell for cell in range(len(_PLACES)) if cell != place]
    decoys = [empty[int(i)] for i in rng.permutation(len(empty))[:3]]
    others = tuple(value for value in range(10) if value != digit)
    image = photo_crop(rng, split, size * _SCALE)
    for cell, value in ((place, digit), *((cell, choose(rng, others)) for cell in decoys)):
        _lay_card(rng, split, image, cell, value)
    return Task(
        kind=KIND,
        difficulty="hard",
        question=_PHRASINGS.pick(rng, split, place=_PLACES[place]),
        focus=_PLACES[place],
        answer=str(digit),
        image=image,
        right_code=((_crop_cell(place, size),), ("print(input_image.size)", _crop_cell(place, size))),
        flawed_code=((_crop_cell(decoys[0], size),), (f"input_image.resize(({size}, {size}))",)),
        guesses=tuple(str(n) for n in range(10)),
        answer_is_printed=False,
    )


def _crop_cell(cell: int, size: int) -> str:
    row, column = divmod(cell, 3)
    box = f"(w * {column} // 3, h * {row} // 3, w * {column + 1} // 3, h * {row + 1} // 3)"
    return f"w, h = input_image.size\ninput_image.crop({box}).resize(({size}, {size}))"


def _lay_card(rng: np.random.Generator, split: Split, image: Image.Image, cell: int, digit: int) -> None:
    """Pastes a white card with a handwritten digit somewhere inside a grid cell."""
    third = image.width // 3
    side = third // 4
    # side of the card in pixels of the full image: a quarter of that for the vision, too few to read
    written = tuple(ink for ink, value in glyphs(split, side) if value == digit)
    card = Image.fromarray(np.where(choose(rng, written), 20, 245).astype(np.uint8)).convert("RGB")
    row, column = divmod(cell, 3)
    left, top = (int(v) for v in rng.integers(4, third - side - 4, size=2))
    image.paste(card, (column * third + left, row * third + top))
