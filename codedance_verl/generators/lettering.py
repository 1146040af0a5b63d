"""Text on images, in the font that matplotlib carries, with the box of its ink."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path

from PIL import ImageDraw, ImageFont

from codedance_verl.errors import UserError
from codedance_verl.generators.drawing import Box


@functools.cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans of a height in pixels. Raises UserError where matplotlib has no such file."""
    found = importlib.util.find_spec("matplotlib")  # the package itself takes a second to import
    path = Path(found.origin if found and found.origin else "").parent / "mpl-data/fonts/ttf/DejaVuSans.ttf"
    try:
        # the basic layout is in every Pillow: the other one depends on a library of the system
        return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)
    except OSError as error:
        raise UserError(f"there is no font at {path} ({error}); reinstall matplotlib") from error


def text_size(text: str, size: int) -> tuple[int, int]:
    """Width of a text in pixels, and height of a line of any text."""
    ascent, descent = font(size).getmetrics()
    return round(font(size).getlength(text)), ascent + descent


def ink_size(text: str, size: int) -> tuple[int, int]:
    """Width and height in pixels of the ink of a text."""
    left, top, right, bottom = font(size).getbbox(text)
    return round(right - left), round(bottom - top)


def write_text(
    draw: ImageDraw.ImageDraw, text: str, centre: tuple[int, int], size: int, colour: tuple[int, int, int]
) -> Box:
    """Writes one line around a point; returns the box of the ink."""
    left, top, right, bottom = (int(value) for value in draw.textbbox(centre, text, font=font(size), anchor="mm"))
    draw.text(centre, text, fill=colour, font=font(size), anchor="mm")
    return left, top, right, bottom
