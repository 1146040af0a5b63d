"""Spatial questions, answered again from the pixels."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from codedance_verl.generators.choices import Split
from codedance_verl.generators.item import Item
from codedance_verl.generators.kinds import KINDS, draw_item
from tests.unit.generators import readers
from tests.unit.generators.readers import Seen

KIND = KINDS["spatial"]
_THING = r"(?:red|green|blue|yellow|orange|purple) (?:disc|square|diamond|ring|cross)"
_STEP = "the object that is nearest to "


def _items(level: int, count: int, split: Split = Split.TRAIN, **dials: int) -> list[Item]:
    return [draw_item("spatial", KIND.settings(level, dials), 1, split, index) for index in range(count)]


def _answers(things: list[Seen], question: str) -> list[tuple[str, float]]:
    """Answer and decisive difference in pixels, of each object that the words leave open."""
    words, reference_words = _parts(question)
    reference = next(thing for thing in things if thing.name == reference_words.split("the ")[-1])
    margins = []
    for _ in range(reference_words.count(_STEP)):
        near, second = _sorted(reference, things)[:2]
        margins.append(_distance(reference, second) - _distance(reference, near))
        reference = near
    answer, margin = _decide(words, question, reference, things)
    return [(answer, min([margin, *margins]))]


def _parts(question: str) -> tuple[str, str]:
    """The form of a question and the words of its reference."""
    chain = re.search(rf"((?:{_STEP})*the {_THING})(?=[,.?:]| or | closer)", _reference_side(question))
    assert chain is not None, question
    form = next(
        name
        for name, pattern in {
            "count": r"How many objects|Count the objects|number of objects",
            "nearer": r"Which is nearer|closer to|the one with the smaller distance",
            "farthest": r"farthest|most distant|largest distance",
            "nearest": r".",
        }.items()
        if re.search(pattern, question.replace(_STEP, "").replace("closest", "nearest"))
    )
    return form, chain[1]


def _reference_side(question: str) -> str:
    """The part of a question behind the words that lead to its reference."""
    return re.split(
        r"to the left of |to the right of |above |below |is closest to |closer to |nearer to |distant from |farthest "
        r"from |distance to |object is nearest to ",
        question,
        maxsplit=1,
    )[-1]


def _decide(form: str, question: str, reference: Seen, things: list[Seen]) -> tuple[str, float]:
    others = _sorted(reference, things)
    if form == "count":
        axis = 0 if "left of" in question or "right of" in question else 1
        sign = 1 if "right of" in question or "below" in question else -1
        offsets = [sign * (thing.middle[axis] - reference.middle[axis]) for thing in others]
        return str(sum(offset > 0 for offset in offsets)), min(map(abs, offsets))
    if form == "nearer":
        pair = re.search(rf"the ({_THING}) or the ({_THING})", question)
        assert pair is not None, question
        near, far = [thing for thing in others if thing.name in pair.groups()]
        return near.name, _distance(reference, far) - _distance(reference, near)
    first, second = (others[0], others[1]) if form == "nearest" else (others[-1], others[-2])
    return first.name, abs(_distance(reference, first) - _distance(reference, second))


def _distance(first: Seen, second: Seen) -> float:
    return math.dist(first.middle, second.middle)


def _sorted(reference: Seen, things: list[Seen]) -> list[Seen]:
    return sorted((thing for thing in things if thing is not reference), key=lambda thing: _distance(reference, thing))


@pytest.mark.parametrize("split", [Split.TRAIN, Split.TEST])
@pytest.mark.parametrize("level", [1, 2, 3, 4, 5])
def test_the_answer_is_what_the_pixels_say(level: int, split: Split) -> None:
    for item in _items(level, 12, split):
        things = readers.things(item.images[0])
        assert len(things) == item.measures["objects"] == KIND.settings(level, {})["objects"]
        ((answer, margin),) = _answers(things, item.question)
        assert answer == item.answer, item.question
        # the centre of the pixels and of the box differ by less than half a pixel
        assert margin == pytest.approx(item.measures["gap_px"], abs=2)


def test_evidence_is_the_objects_that_decide() -> None:
    for item in _items(3, 20):
        boxes = {thing.name: thing.box for thing in readers.things(item.images[0])}
        for region in item.regions:
            assert np.abs(np.array(boxes[region.label]) - region.box).max() <= 1
        named = set(re.findall(_THING, item.question)) | (set() if item.answer.isdigit() else {item.answer})
        assert named - {region.label for region in item.regions} <= set(
            re.findall(rf"the ({_THING}) or", item.question)
        )


def _wrong_by_eye(items: list[Item], error: float) -> float:
    """Share of questions that a glance gets wrong which sees each place with an error of some pixels."""
    rng = np.random.default_rng(0)
    wrong = 0
    for item in items:
        blurred = [
            Seen(thing.name, tuple(np.array(thing.middle) + rng.normal(0, error, 2)), thing.box)
            for thing in readers.things(item.images[0])
        ]
        wrong += _answers(blurred, item.question)[0][0] != item.answer
    return wrong / len(items)


def test_the_dial_gap_decides_how_exactly_one_has_to_look() -> None:
    wide, narrow = (_items(3, 40, gap=gap) for gap in (40, 4))
    assert min(item.measures["gap_px"] for item in wide) >= 40
    assert 4 <= min(item.measures["gap_px"] for item in narrow) < 8
    assert _wrong_by_eye(wide, 8.0) < 0.05 < 0.15 < _wrong_by_eye(narrow, 8.0)
    assert not any(item.needs_code for item in wide)
    assert any(item.needs_code for item in narrow)


def test_the_dial_steps_makes_the_reference_a_chain() -> None:
    for steps in (1, 2, 4):
        for item in _items(2, 5, steps=steps, gap=4):
            assert _parts(item.question)[1].count(_STEP) == steps - 1


def test_a_chain_leads_on_and_does_not_name_its_answer() -> None:
    for item in _items(2, 30, steps=3, objects=9, gap=4):
        things = [region.label for region in item.regions]
        _, words = _parts(item.question)
        assert len(things) >= 3 and item.answer != words.rsplit("the ", 1)[-1]
        if not item.answer.isdigit() and " or the " not in item.question:
            assert item.answer not in things[:3]
