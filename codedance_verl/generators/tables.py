"""Tables of numbers drawn as images: looked up, compared, summed, counted.

The dial `text` is the height of the letters, `steps` what is done with the cells: 1 reads one, 2 compares, 3 works on a
whole column.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from codedance_verl.generators.choices import Phrasings, Split, choose
from codedance_verl.generators.dials import Dial, Dials, Kind
from codedance_verl.generators.drawing import Box, DoesNotFit
from codedance_verl.generators.item import Item, Region, view_scale
from codedance_verl.generators.lettering import text_size, write_text

NAME = "table"

_LEGIBLE_TEXT = 9.0
"""Height of text in pixels of the view below which it is taken to be illegible without code."""

_MOST_CELLS = 6
"""Cells that are read and worked on without code, at most."""

# fmt: off
NAMES = (
    "Ada", "Ben", "Cleo", "Dora", "Eli", "Fay", "Gus", "Hana", "Ivo", "Jana", "Kurt", "Lena",
    "Milo", "Nina", "Otto", "Pia", "Quin", "Rosa", "Sven", "Tara", "Udo", "Vera", "Wim", "Yara",
)
# fmt: on
GOODS = (
    "apples",
    "pears",
    "plums",
    "lemons",
    "melons",
    "onions",
    "carrots",
    "beans",
    "nuts",
    "figs",
    "cherries",
    "grapes",
)

LINE = (150, 150, 150)
INK = (20, 20, 20)
_GROUNDS = ((255, 255, 255), (250, 246, 236), (238, 243, 250))
_HEAD = (214, 222, 232)

_PHRASINGS = {
    "lookup": Phrasings(
        seen=("How many {goods} did {name} sell?", "What number of {goods} does the table give for {name}?"),
        held_out=("According to the table, {name} sold how many {goods}?",),
    ),
    "most": Phrasings(
        seen=("Who sold the most {goods}?", "Who has the highest number of {goods}?"),
        held_out=("Name the person with the most {goods}.",),
    ),
    "difference": Phrasings(
        seen=(
            "How many more {goods} did {name} sell than {other}?",
            "By how many {goods} is {name} ahead of {other}?",
        ),
        held_out=("What is the difference in {goods} between {name} and {other}?",),
    ),
    "sum": Phrasings(
        seen=("How many {goods} did all of them sell together?", "What is the sum of all numbers of {goods}?"),
        held_out=("Add up the {goods} of everybody in the table. What is the total?",),
    ),
    "over": Phrasings(
        seen=("How many people sold more than {bound} {goods}?", "Count the people with more than {bound} {goods}."),
        held_out=("For how many people is the number of {goods} above {bound}?",),
    ),
    "of_best": Phrasings(
        seen=(
            "How many {goods} did the three people with the most {other} sell together?",
            "Take the three people who sold the most {other}. What is the sum of their {goods}?",
        ),
        held_out=("Who are the three with the most {other}? Add up their {goods}.",),
    ),
}


@dataclass(frozen=True)
class Table:
    """Numbers [rows, columns] with names of rows and columns."""

    names: tuple[str, ...]
    goods: tuple[str, ...]
    values: np.ndarray


@dataclass(frozen=True)
class _Asked:
    """Question on a table: fields of its words, its answer, and the cells (row, column) that have to be read."""

    form: str
    fields: dict[str, object]
    answer: str
    cells: tuple[tuple[int, int], ...]


def _column(table: Table, column: int) -> tuple[tuple[int, int], ...]:
    return tuple((row, column) for row in range(len(table.names)))


def _lookup(rng: np.random.Generator, table: Table, column: int) -> _Asked:
    row = int(rng.integers(len(table.names)))
    answer = str(table.values[row, column])
    return _Asked("lookup", {"goods": table.goods[column], "name": table.names[row]}, answer, ((row, column),))


def _most(rng: np.random.Generator, table: Table, column: int) -> _Asked:
    answer = table.names[int(table.values[:, column].argmax())]
    return _Asked("most", {"goods": table.goods[column]}, answer, _column(table, column))


def _difference(rng: np.random.Generator, table: Table, column: int) -> _Asked:
    # the larger number first: "how many more" has no negative answer
    low, high = sorted(rng.permutation(len(table.names))[:2].tolist(), key=lambda row: int(table.values[row, column]))
    answer = str(table.values[high, column] - table.values[low, column])
    fields = {"goods": table.goods[column], "name": table.names[high], "other": table.names[low]}
    return _Asked("difference", dict(fields), answer, ((high, column), (low, column)))


def _sum(rng: np.random.Generator, table: Table, column: int) -> _Asked:
    answer = str(table.values[:, column].sum())
    return _Asked("sum", {"goods": table.goods[column]}, answer, _column(table, column))


def _over(rng: np.random.Generator, table: Table, column: int) -> _Asked:
    values = table.values[:, column]
    # between two neighbours in size, so that the bound is nobody's number
    below = int(np.sort(values)[int(rng.integers(len(values) - 1))])
    bound = below + 1 if below + 1 not in values else below
    answer = str(int((values > bound).sum()))
    return _Asked("over", {"goods": table.goods[column], "bound": bound}, answer, _column(table, column))


def _of_best(rng: np.random.Generator, table: Table, column: int) -> _Asked:
    if len(table.names) < 4 or len(table.goods) < 2:
        raise DoesNotFit
    # any column but the one that is added up
    other = (column + 1 + int(rng.integers(len(table.goods) - 1))) % len(table.goods)
    best = np.argsort(-table.values[:, other])[:3].tolist()
    answer = str(sum(int(table.values[row, column]) for row in best))
    cells = (*_column(table, other), *((row, column) for row in best))
    return _Asked("of_best", {"goods": table.goods[column], "other": table.goods[other]}, answer, cells)


_FORMS: dict[int, tuple[Callable[[np.random.Generator, Table, int], _Asked], ...]] = {
    1: (_lookup,),
    2: (_most, _difference),
    3: (_sum, _over, _of_best),
}


def _draw_table(rng: np.random.Generator, dials: Dials) -> Table:
    rows, columns, digits = dials["rows"], dials["columns"], dials["digits"]
    least = 10 ** (digits - 1)
    numbers = range(least, 10 * least)
    if len(numbers) < rows:
        raise DoesNotFit
    # no number twice in a column, so that every order has one answer
    drawn = [rng.choice(len(numbers), size=rows, replace=False) + least for _ in range(columns)]
    return Table(
        tuple(NAMES[index] for index in rng.permutation(len(NAMES))[:rows].tolist()),
        tuple(GOODS[index] for index in rng.permutation(len(GOODS))[:columns].tolist()),
        np.stack(drawn, axis=1),
    )


def render(rng: np.random.Generator, table: Table, text: int) -> tuple[Image.Image, dict[tuple[int, int], Box]]:
    """Image of a table with letters of `text` pixels, and the box of each cell (row, column) between its lines.

    Row and column -1 are the heads.
    """
    heads = ("", *table.goods)
    lines = [heads, *((name, *map(str, row)) for name, row in zip(table.names, table.values.tolist(), strict=True))]
    widths = [max(text_size(line[column], text)[0] for line in lines) + text for column in range(len(heads))]
    height = text_size("", text)[1] + text // 2
    margin = int(rng.integers(4, 24))
    # left edges of the columns, and the right edge of the last one
    edges = np.cumsum([margin, *widths]).tolist()
    image = Image.new("RGB", (edges[-1] + margin, 2 * margin + height * len(lines)), choose(rng, _GROUNDS))
    draw = ImageDraw.Draw(image)
    draw.rectangle((edges[0], margin, edges[-1], margin + height), fill=_HEAD)
    boxes = dict[tuple[int, int], Box]()
    for row, line in enumerate(lines):
        top = margin + row * height
        for column, cell in enumerate(line):
            box = (edges[column] + 1, top + 1, edges[column + 1], top + height)
            boxes[row - 1, column - 1] = box  # the heads are row and column -1
            write_text(draw, cell, ((box[0] + box[2]) // 2, (box[1] + box[3]) // 2), text, INK)
    for row in range(len(lines) + 1):
        draw.line((edges[0], margin + row * height, edges[-1], margin + row * height), fill=LINE)
    for edge in edges:
        draw.line((edge, margin, edge, margin + height * len(lines)), fill=LINE)
    return image, boxes


def draw(rng: np.random.Generator, split: Split, dials: Dials, view_pixels: int) -> Item:
    table = _draw_table(rng, dials)
    form = choose(rng, _FORMS[dials["steps"]])
    asked = form(rng, table, int(rng.integers(len(table.goods))))
    image, boxes = render(rng, table, dials["text"])
    shown = dials["text"] * view_scale(*image.size, view_pixels)
    return Item(
        question=_PHRASINGS[asked.form].pick(rng, split, **asked.fields),
        answer=asked.answer,
        images=(image,),
        regions=tuple(Region(_label(table, cell), boxes[cell]) for cell in asked.cells),
        needs_code=shown < _LEGIBLE_TEXT or len(asked.cells) > _MOST_CELLS,
        measures={"text_px": dials["text"], "cells": len(asked.cells)},
    )


def _label(table: Table, cell: tuple[int, int]) -> str:
    return f"{table.names[cell[0]]}, {table.goods[cell[1]]}"


KIND = Kind(
    NAME,
    (
        Dial("rows", "rows", (3, 5, 8, 12, 16), 2, len(NAMES)),
        Dial("columns", "columns of numbers", (2, 3, 4, 6, 8), 1, len(GOODS)),
        Dial("digits", "digits of a number", (2, 3, 3, 4, 5), 1, 7),
        Dial("text", "height of the letters in pixels", (28, 24, 20, 16, 13), 9, 64),
        Dial("steps", "1 reads a cell, 2 compares, 3 works on a column", (1, 1, 2, 3, 3), 1, 3),
    ),
    draw,
)
