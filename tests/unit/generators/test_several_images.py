"""Questions over several images, answered again from the pixels of each."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from codedance_verl.generators.choices import Split
from codedance_verl.generators.item import Item
from codedance_verl.generators.kinds import KINDS, draw_item
from tests.unit.generators import readers

KIND = KINDS["several_images"]


def _items(level: int, count: int, split: Split = Split.TRAIN, **dials: int) -> list[Item]:
    return [draw_item("several_images", KIND.settings(level, dials), 5, split, index) for index in range(count)]


def _counts(item: Item) -> list[Counter[str]]:
    return [Counter(thing.name for thing in readers.things(image)) for image in item.images]


@pytest.mark.parametrize("split", [Split.TRAIN, Split.TEST])
@pytest.mark.parametrize("level", [1, 2, 3, 4, 5])
def test_the_answer_is_what_the_pixels_say(level: int, split: Split) -> None:
    dials = KIND.settings(level, {})
    for item in _items(level, 9, split):
        counts = _counts(item)
        assert len(counts) == dials["images"]
        assert sum(map(Counter.total, counts)) == item.measures["objects"]
        asked = re.search(
            r"(red|green|blue|yellow|orange|purple) (disc|square|diamond|ring|cross)(?:e?s)\b", item.question
        )
        if asked is None:
            (missing,) = set.union(*map(set, counts)) - set.intersection(*map(set, counts))
            assert missing == item.answer
            assert sum(missing in found for found in counts) == len(counts) - 1
            continue
        numbers = [found[f"{asked[1]} {asked[2]}"] for found in counts]
        if re.search(r"the most", item.question):
            first, second = sorted(numbers, reverse=True)[:2]
            assert first - second == dials["lead"]
            assert item.answer == str(numbers.index(first) + 1)
        else:
            assert item.answer == str(sum(numbers))


def test_evidence_is_the_objects_asked_for_in_each_image() -> None:
    for item in _items(3, 12):
        for number, image in enumerate(item.images):
            seen = {thing.box: thing.name for thing in readers.things(image)}
            regions = [region for region in item.regions if region.image == number]
            for region in regions:
                box = min(seen, key=lambda box: np.abs(np.array(box) - region.box).sum())
                assert np.abs(np.array(box) - region.box).max() <= 1
                assert seen[box] == region.label
            label = item.regions[0].label
            assert len(regions) == sum(name == label for name in seen.values())


def _recognised(items: list[Item], side: int) -> float:
    """Share of the objects whose shape and colour are read right in a view of `side` pixels."""
    right = total = 0
    for item in items:
        for image in item.images:
            view = image.resize((side, side), Image.Resampling.BICUBIC)
            truth = Counter(thing.name for thing in readers.things(image))
            right += (truth & Counter(thing.name for thing in readers.things(view))).total()
            total += truth.total()
    return right / total


def test_small_objects_are_not_recognised_in_a_small_view() -> None:
    large, small = (
        [
            draw_item("several_images", KIND.settings(3, {"object": size}), 5, Split.TRAIN, index, view_pixels=112**2)
            for index in range(6)
        ]
        for size in (40, 12)
    )
    assert _recognised(large, 112) > 0.95
    assert _recognised(small, 112) < 0.8
    assert all(item.needs_code for item in small)


def test_the_dials_set_images_and_objects() -> None:
    for images, objects in ((2, 4), (5, 8)):
        for item in _items(2, 6, images=images, objects=objects):
            assert len(item.images) == images
            assert images * objects - 1 <= item.measures["objects"] <= images * objects


@pytest.mark.parametrize("level", [1, 2, 3])
def test_no_number_of_all_together_is_a_safe_guess(level: int) -> None:
    items = [item for item in _items(level, 120) if re.search("together|of all", item.question)]
    totals = Counter(item.answer for item in items)
    assert len(items) > 20 and max(totals.values()) < 0.5 * len(items)
