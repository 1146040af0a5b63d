"""Readers of generated images by their pixels alone: objects, tables, points, boards."""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import find_objects, label

from codedance_verl.generators.lettering import font

RGB = {
    "red": (255, 0, 0),
    "green": (0, 128, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "orange": (255, 165, 0),
    "purple": (128, 0, 128),
}
_ALL_NEIGHBOURS = np.ones((3, 3), int)
_FROM_GROUND = 60
"""Grey levels in any channel by which all colours of objects differ from all grounds."""


@dataclass(frozen=True)
class Seen:
    """Object that was found, with the centre of its pixels (column, row)."""

    name: str
    middle: tuple[float, float]
    box: tuple[int, int, int, int]


def things(image: Image.Image) -> list[Seen]:
    """Objects of the six colours on a ground of one colour."""
    ground = image.getpixel((0, 0))  # no object touches the edge
    pixels = np.asarray(image, np.int16)
    # half-way to a colour, where the image was scaled; channel by channel, as a reduction over an axis of three is slow
    shown = np.logical_or.reduce([abs(pixels[..., channel] - ground[channel]) > _FROM_GROUND for channel in range(3)])
    numbered, _ = label(shown, _ALL_NEIGHBOURS)
    found = []
    for number, (rows, columns) in enumerate(find_objects(numbered), 1):
        mask = numbered[rows, columns] == number
        colour = np.median(pixels[rows, columns][mask], axis=0)
        name = min(RGB, key=lambda name: float(abs(colour - RGB[name]).max()))
        y, x = mask.nonzero()
        middle = (float(x.mean()) + columns.start, float(y.mean()) + rows.start)
        box = (columns.start, rows.start, columns.stop, rows.stop)
        found.append(Seen(f"{name} {_shape(mask)}", middle, box))
    return found


def _shape(mask: np.ndarray) -> str:
    """Shape whose ideal covers the same pixels best."""
    y, x = (np.linspace(-1, 1, count) * (1 - 1 / count) for count in mask.shape)
    y, x = abs(y[:, None]), abs(x[None, :])
    ideals = {
        "square": (x <= 1) & (y <= 1),
        "disc": x**2 + y**2 <= 1,
        "ring": (x**2 + y**2 <= 1) & (x**2 + y**2 >= 0.36),
        "diamond": x + y <= 1,
        "cross": (x <= 1 / 3) | (y <= 1 / 3),
    }
    return max(ideals, key=lambda shape: float((mask & ideals[shape]).sum() / (mask | ideals[shape]).sum()))


def table(image: Image.Image, size: int, words: tuple[str, ...]) -> tuple[list[str], list[str], np.ndarray]:
    """Names of the rows, of the columns, and the numbers of a drawn table whose letters are `size` pixels high."""
    grey = np.asarray(image.convert("L"), float)
    line = (np.asarray(image, int) == 150).all(-1)
    rows, columns = (_lines(line.sum(axis)) for axis in (1, 0))
    cells = [
        [grey[top + 1 : bottom, left + 1 : right] for left, right in itertools.pairwise(columns)]
        for top, bottom in itertools.pairwise(rows)
    ]
    names = [read_word(line_of[0], size, words) for line_of in cells[1:]]
    goods = [read_word(cell, size, words) for cell in cells[0][1:]]
    values = [[int("".join(read_digits(cell, size))) for cell in line_of[1:]] for line_of in cells[1:]]
    return names, goods, np.array(values)


def _lines(counts: np.ndarray) -> list[int]:
    return [int(place) for place in (counts > 0.5 * counts.max()).nonzero()[0]]


def _ink(grey: np.ndarray) -> np.ndarray:
    """Ink from 0 to 1 on any ground, cut to what holds some."""
    return _trimmed((grey.max() - grey) / max(1.0, float(grey.max() - grey.min())))


def _trimmed(ink: np.ndarray) -> np.ndarray:
    rows, columns = (ink > 0.3).any(1).nonzero()[0], (ink > 0.3).any(0).nonzero()[0]
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


@functools.lru_cache(maxsize=4_096)
def _template(text: str, size: int, phase: float) -> np.ndarray:
    canvas = Image.new("L", (size * (len(text) + 2), size * 3), 255)
    ImageDraw.Draw(canvas).text((size + phase, size), text, fill=0, font=font(size))
    return _ink(np.asarray(canvas, float))


def _unlike(ink: np.ndarray, text: str, size: int) -> float:
    """Mean difference from the best rendering of a text, moved by a pixel at most; infinite where the sizes differ."""
    best = np.inf
    for phase in (0.0, 0.25, 0.5, 0.75):
        template = _template(text, size, phase)
        if abs(ink.shape[0] - template.shape[0]) > 2 or abs(ink.shape[1] - template.shape[1]) > 2:
            continue
        height, width = (max(pair) + 2 for pair in zip(ink.shape, template.shape, strict=True))
        laid = np.zeros((height, width))
        laid[1 : 1 + template.shape[0], 1 : 1 + template.shape[1]] = template
        for top in range(height - ink.shape[0] + 1):
            for left in range(width - ink.shape[1] + 1):
                moved = np.zeros((height, width))
                moved[top : top + ink.shape[0], left : left + ink.shape[1]] = ink
                best = min(best, float(abs(laid - moved).sum() / template.sum()))
    return best


def read_word(grey: np.ndarray, size: int, words: tuple[str, ...]) -> str:
    ink = _ink(grey)
    return min(words, key=lambda word: _unlike(ink, word, size))


def read_digits(grey: np.ndarray, size: int) -> list[str]:
    """Digits of a cell, cut apart by their width, which is the same for all."""
    ink, width = _ink(grey), font(size).getlength("0")
    count = max(1, round(ink.shape[1] / width))
    start = (ink.shape[1] - count * width) / 2
    edges = [min(max(0, round(start + place * width)), ink.shape[1]) for place in range(count + 1)]
    return [
        _digit(ink[:, left:right].tobytes(), (ink.shape[0], right - left), size)
        for left, right in itertools.pairwise(edges)
    ]


@functools.lru_cache(maxsize=65_536)
def _digit(ink: bytes, shape: tuple[int, int], size: int) -> str:
    glyph = _trimmed(np.frombuffer(ink).reshape(shape))
    return min("0123456789", key=lambda digit: _unlike(glyph, digit, size))


def labelled_points(image: Image.Image, size: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Places (column, row) of the black points by letter, and of the red ones by number, labels read as well."""
    pixels = np.asarray(image, int)
    red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    letters = (red == green) & (blue > red + 25)
    numbers = (green == blue) & (red > green + 25) & (green > 60)
    black = _named(_centres((pixels == 0).all(-1)), letters, pixels, size, "ABCDE")
    reds = _named(_centres((pixels == (200, 0, 0)).all(-1)), numbers, pixels, size, "123456789")
    return black, reds


def _centres(mask: np.ndarray) -> list[np.ndarray]:
    numbered, count = label(mask, _ALL_NEIGHBOURS)
    return [np.argwhere(numbered == number).mean(0)[::-1] for number in range(1, count + 1)]


def _named(
    points: list[np.ndarray], mask: np.ndarray, pixels: np.ndarray, size: int, characters: str
) -> dict[str, np.ndarray]:
    """Points by the character that is nearest to each, which no other point has."""
    numbered, _ = label(mask, _ALL_NEIGHBOURS)
    found = dict[str, np.ndarray]()
    for number, (rows, columns) in enumerate(find_objects(numbered), 1):
        grey = np.where(numbered[rows, columns] == number, pixels[rows, columns].min(-1), 255)
        name = min(characters, key=lambda text: _unlike(_ink(grey.astype(float)), text, size))
        centre = np.array([(columns.start + columns.stop - 1) / 2, (rows.start + rows.stop - 1) / 2])
        assert name not in found
        found[name] = min(points, key=lambda point: float(np.hypot(*(point - centre))))
    assert len(found) == len(points)
    return found


def board(image: Image.Image) -> np.ndarray:
    """Pixels [rows, columns, size, size, 3] of the squares of a board."""
    pixels = np.asarray(image, int)[30:, 30:]
    inked = (pixels < 255).any(-1)
    rows, columns = (_runs(inked.mean(axis) > 0.3) for axis in (1, 0))
    return np.array([[pixels[row, column] for column in columns] for row in rows])


def _runs(mask: np.ndarray) -> list[slice]:
    return [found[0] for found in find_objects(label(mask)[0])]
