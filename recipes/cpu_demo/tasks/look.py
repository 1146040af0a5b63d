"""The colour of a card whose detail the model does not see at first: code cuts it out, the answer is seen there.

`generate` makes the hard question: a small card of which the image, seen at a quarter of its side, has the place, but
nothing of the colour. `generate_large` makes its easy twin, asked in the same words: only the image says which of both
it is.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from PIL import Image
from scipy.optimize import linprog

from recipes.cpu_demo.tasks.base import (
    COLOURS,
    RGB,
    Phrasings,
    Program,
    Split,
    Task,
    choose,
)
from recipes.cpu_demo.tasks.counting import shade

KIND = "look"
LARGE_KIND = "look_large"

_SCALE = 4
"""Side of the image over that of its view."""

_QUARTERS = 4

_GREY, _NOISE = 128, 20
_CONTRAST = 0.75
"""Of a colour's distance from grey: no pixel of a card, noise included, may be cut off at 0 or 255."""

_CORE, _PROFILE, _WIDTH, _MARGIN = 2, 16, 12, 2
"""Pixels of a card: rows of the line that has its colour, rows it takes to hide that line, columns, grey edge."""

_PHRASINGS = Phrasings(
    seen=(
        "Which colour is the card?",
        "What colour is the card?",
        "Name the colour of the card.",
        "There is a card. Which colour is it?",
        "Look for the card. What colour is it?",
        "The card has a colour. Which one?",
    ),
    held_out=(
        "What is the colour of the card?",
        "Which colour has the card?",
        "Look for the card. Which colour is it?",
    ),
)


# Thoughts begin with what a glance shows, and the word behind it decides for or against code. It is another word for
# each size: the same one would tie both decisions together, and so small a model would hardly learn to part them.
_SMALL_CODE = ("The card is small so I use code to enlarge it.", "The card is small so code can enlarge it.")
_SMALL_GUESS = ("The card is small but I guess its colour.", "The card is small but I can guess.")
_LARGE_CODE = ("The card is large, I enlarge it to be sure.", "The card is large, code can confirm it.")
_LARGE_ANSWER = ("The card is large and I can see it.", "The card is large and easy to see.")


def look_program(size: int) -> Program:
    """Returns one cell that cuts the middle rows of what is not black out of the image and shows them, enlarged."""
    above = _MARGIN + (_PROFILE - _CORE) // 2  # rows of a hidden card above its line, and below
    lines = (
        "l, t, r, b = input_image.getbbox()",
        f"input_image.crop((l, t + {above}, r, b - {above})).resize(({size}, {size}))",
    )
    return ("\n".join(lines),)


def generate(rng: np.random.Generator, split: Split, size: int) -> Task:
    return _task(rng, split, KIND, size)


def generate_large(rng: np.random.Generator, split: Split, size: int) -> Task:
    return _task(rng, split, LARGE_KIND, size)


def _task(rng: np.random.Generator, split: Split, kind: str, size: int) -> Task:
    # no colour is held out at any place: the place, which is seen, would then say something about the colour
    place, colour = int(rng.integers(_QUARTERS)), choose(rng, COLOURS)
    side = _SCALE * size
    pixels = np.zeros((side, side, 3), dtype=np.uint8)
    _lay(rng, pixels, place, hidden_card(rng, colour) if kind == KIND else _large_card(rng, colour, side))
    return Task(
        kind=kind,
        difficulty="hard" if kind == KIND else "easy",
        question=_PHRASINGS.pick(rng, split),
        focus="card",
        answer=colour,
        image=Image.fromarray(pixels),
        right_code=(look_program(size),),
        flawed_code=((f"input_image.resize(({size}, {size}))",),),  # what was seen before
        guesses=COLOURS,
        answer_is_printed=False,
        before_code=_SMALL_CODE if kind == KIND else _LARGE_CODE,
        at_once=_SMALL_GUESS if kind == KIND else _LARGE_ANSWER,
    )


def _lay(rng: np.random.Generator, pixels: np.ndarray, place: int, card: np.ndarray) -> None:
    """Puts a card somewhere into a quarter of `pixels` [side, side, 3], its profile on the grid of the view."""
    half = len(pixels) // 2
    row, column = divmod(place, 2)
    top = _SCALE * int(rng.integers(2, (half - card.shape[0]) // _SCALE - 2)) + (-_MARGIN) % _SCALE
    left = int(rng.integers(8, half - card.shape[1] - 8))
    top, left = top + row * half, left + column * half
    pixels[top : top + card.shape[0], left : left + card.shape[1]] = np.clip(card, 1, 255)


def hidden_card(rng: np.random.Generator, colour: str) -> np.ndarray:
    """A card [rows, columns, 3] of noisy grey with a line of the colour that scaling down averages away.

    The line's rows and the rows around it add up to grey in every row of the view (`hiding_profile`), so that views of
    cards of different colours are the same but for rounding: one grey level.
    """
    rows, columns = _PROFILE + 2 * _MARGIN, _WIDTH + 2 * _MARGIN
    card = _GREY + rng.integers(-_NOISE, _NOISE + 1, size=(rows, columns, 3)).astype(float)
    offset = _CONTRAST * (np.array(RGB[colour]) - _GREY)
    inner = slice(_MARGIN, -_MARGIN)
    card[inner, inner] += hiding_profile()[:, None, None] * offset  # [profile, 1, 1] * [3]
    return np.round(card)


def _large_card(rng: np.random.Generator, colour: str, image_side: int) -> np.ndarray:
    """A plain card [side, side, 3] over a quarter to two fifths of the image's side."""
    side = int(rng.integers(image_side // 4, 2 * image_side // 5))
    return np.tile(np.array(shade(rng, colour)), (side, side, 1))


@cache
def hiding_profile() -> np.ndarray:
    """Factors [profile] of a colour by row: 1 on the middle rows, and their bicubic view is 0 everywhere.

    The smallest such factors, none beyond -1 to 1: a linear programme over the rows of Pillow's own kernel.
    """
    weights = _view_weights()
    middle = np.eye(_PROFILE)[(_PROFILE - _CORE) // 2 : (_PROFILE + _CORE) // 2]
    # a factor is the difference of two numbers of 0 to 1, whose sum is what is made small
    equal = np.vstack([np.hstack([weights, -weights]), np.hstack([middle, -middle])])
    wanted = np.r_[np.zeros(len(weights)), np.ones(_CORE)]
    found = linprog(np.ones(2 * _PROFILE), A_eq=equal, b_eq=wanted, bounds=(0.0, 1.0)).x
    assert found is not None
    factors: np.ndarray = found[:_PROFILE] - found[_PROFILE:]
    return factors


def _view_weights() -> np.ndarray:
    """Weight of each row of a profile in each row of the view that it reaches [rows of the view, profile]."""
    side = 4 * _PROFILE  # the kernel is the same far from any edge
    start = side // 2
    weights = np.zeros((side // _SCALE, _PROFILE))
    for row in range(_PROFILE):
        impulse = np.zeros((side, 1), np.float32)
        impulse[start + row] = 1.0
        view = Image.fromarray(impulse).resize((1, side // _SCALE), Image.Resampling.BICUBIC)
        weights[:, row] = np.asarray(view)[:, 0]
    reached: np.ndarray = weights[np.abs(weights).sum(axis=1) > 0]
    return reached
