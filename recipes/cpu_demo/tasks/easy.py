"""Questions that a glance answers: which colour fills most of the image. Calling a tool here is waste."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from codedance_verl.generators.drawing import add_noise
from recipes.cpu_demo.tasks.base import (
    COLOURS,
    RGB,
    Phrasings,
    Split,
    Task,
    choose,
    combination_allowed,
)
from recipes.cpu_demo.tasks.counting import shade

KIND = "easy"

_PHRASINGS = Phrasings(
    seen=(
        "What colour fills the picture?",
        "Which colour fills most of the picture?",
        "What is the main colour of the picture?",
        "What is the main colour?",
        "Name the main colour of the picture.",
        "Name the colour that covers the picture.",
        "Which colour covers most of the picture?",
        "Tell the main colour.",
        "In which colour is the picture filled?",
        "Most of the picture has one colour. Which one?",
    ),
    held_out=(
        "Which colour fills the picture?",
        "Name the colour that fills the picture.",
        "Which is the main colour of the picture?",
        "What colour covers the picture?",
    ),
)

_FRAMES = ("none", "edge", "corner", "bar", "side")


def _draw_frame(draw: ImageDraw.ImageDraw, frame: str, size: int, colour: tuple[int, int, int]) -> None:
    """Something of another colour that covers a small part: an edge all round, a corner, a bar above or aside."""
    thick = size // 14
    if frame == "edge":
        draw.rectangle((0, 0, size - 1, size - 1), outline=colour, width=thick)
    elif frame == "corner":
        draw.rectangle((0, 0, size // 4, size // 4), fill=colour)
    elif frame == "bar":
        draw.rectangle((0, 0, size - 1, size // 7), fill=colour)
    elif frame == "side":
        draw.rectangle((0, 0, size // 7, size - 1), fill=colour)


def generate(rng: np.random.Generator, split: Split, size: int) -> Task:
    while True:
        first, second = int(rng.integers(len(COLOURS))), int(rng.integers(len(_FRAMES)))
        if combination_allowed(split, first, second):
            break
    colour, frame = COLOURS[first], _FRAMES[second]
    image = Image.new("RGB", (size, size), shade(rng, colour))
    other = choose(rng, tuple(c for c in COLOURS if c != colour))
    _draw_frame(ImageDraw.Draw(image), frame, size, RGB[other])
    half = size // 2
    return Task(
        kind=KIND,
        difficulty="easy",
        question=_PHRASINGS.pick(rng, split),
        focus="main colour",
        answer=colour,
        image=add_noise(rng, image, 16),
        right_code=((f"print(input_image.getpixel(({half}, {half})))",),),
        flawed_code=(("print(input_image.getpixel((0, 0)))",),),
        guesses=COLOURS,
        answer_is_printed=False,
        before_code=("Let me check a pixel.", "I read one pixel to be sure."),
    )
