"""Tables, read again from their pixels and worked on again."""

from __future__ import annotations

import re

import numpy as np
import pytest
from PIL import Image

from codedance_verl.generators.choices import Split
from codedance_verl.generators.item import Item
from codedance_verl.generators.kinds import KINDS, draw_item
from codedance_verl.generators.tables import GOODS, NAMES
from tests.unit.generators import readers

KIND = KINDS["table"]


def _items(level: int, count: int, split: Split = Split.TRAIN, **dials: int) -> list[Item]:
    return [draw_item("table", KIND.settings(level, dials), 2, split, index) for index in range(count)]


def _answer(question: str, names: list[str], goods: list[str], values: np.ndarray) -> str:
    """Answer to a question by the words in it."""
    named = [word for word in re.findall(r"\w+", question) if word in names]
    columns = [values[:, goods.index(word)] for word in re.findall(r"\w+", question) if word in goods]
    of = columns[0]
    if bound := re.search(r"(?:more than|above) (\d+)", question):
        return str(int((of > int(bound[1])).sum()))
    if "three" in question:
        # the order is by the goods of "the most"
        by = re.search(r"most (\w+)", question)
        assert by is not None
        order = values[:, goods.index(by[1])]
        (summed,) = [column for column in columns if column is not order and not np.array_equal(column, order)]
        return str(int(summed[np.argsort(order)[-3:]].sum()))
    if len(named) == 2:
        return str(abs(int(of[names.index(named[0])] - of[names.index(named[1])])))
    if named:
        return str(int(of[names.index(named[0])]))
    if re.search(r"together|sum|Add up", question):
        return str(int(of.sum()))
    return names[int(of.argmax())]


@pytest.mark.parametrize("split", [Split.TRAIN, Split.TEST])
@pytest.mark.parametrize("level", [1, 2, 3, 4, 5])
def test_the_answer_is_what_the_pixels_say(level: int, split: Split) -> None:
    dials = KIND.settings(level, {})
    for item in _items(level, 4, split):
        names, goods, values = readers.table(item.images[0], dials["text"], NAMES + GOODS)
        assert values.shape == (dials["rows"], dials["columns"])
        assert _answer(item.question, names, goods, values) == item.answer, item.question


def test_evidence_is_the_cells_that_are_read() -> None:
    text = 20
    for item in _items(3, 6, steps=1, text=text):
        (region,) = item.regions
        cell = np.asarray(item.images[0].crop(region.box).convert("L"), float)
        assert "".join(readers.read_digits(cell, text)) == item.answer
    for item in _items(2, 12, steps=3):
        numbers = [
            int("".join(readers.read_digits(np.asarray(item.images[0].crop(region.box).convert("L"), float), 24)))
            for region in item.regions
        ]
        assert len(numbers) == item.measures["cells"]
        if re.search(r"sum of all|all of them sell together|everybody", item.question):
            assert str(sum(numbers)) == item.answer


def _legible(items: list[Item], text: int, view: int) -> float:
    """Share of digits of the evidence that are read right in a view of `view` pixels in all."""
    right = total = 0
    for item in items:
        image = item.images[0]
        scale = min(1.0, (view / (image.width * image.height)) ** 0.5)
        small = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
        seen = small.resize(image.size, Image.Resampling.BICUBIC)
        cell = np.asarray(seen.crop(item.regions[0].box).convert("L"), float)
        read = "".join(readers.read_digits(cell, text))
        right += read == item.answer
        total += 1
    return right / total


def test_small_letters_are_illegible_in_a_small_view() -> None:
    view = 112 * 112
    large = [
        draw_item("table", KIND.settings(1, {"text": 28}), 2, Split.TRAIN, index, view_pixels=view)
        for index in range(12)
    ]
    small = [
        draw_item("table", KIND.settings(4, {"text": 12, "steps": 1}), 2, Split.TRAIN, index, view_pixels=view)
        for index in range(12)
    ]
    assert _legible(large, 28, view) > 0.8
    assert _legible(small, 12, view) < 0.3
    assert not any(item.needs_code for item in large)
    assert all(item.needs_code for item in small)


def test_the_dials_set_the_cells_that_have_to_be_read() -> None:
    assert {item.measures["cells"] for item in _items(3, 8, steps=1)} == {1}
    assert {item.measures["cells"] for item in _items(3, 12, steps=2)} == {2, 8}
    assert {item.measures["cells"] for item in _items(3, 16, steps=3)} == {8, 11}
