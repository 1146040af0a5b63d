"""Facts that hold for every kind: the same for a seed, wordings by split, answers that the grader takes, dials."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from codedance_verl.errors import UserError
from codedance_verl.generators import geometry, noisy_colour, several_images, spatial, tables
from codedance_verl.generators.choices import Phrasings, Split
from codedance_verl.generators.dials import LEVELS, parse_dials
from codedance_verl.generators.item import Item, view_scale
from codedance_verl.generators.kinds import KINDS, code_digest, draw_item, kinds_of
from codedance_verl.grading import grade
from codedance_verl.grading.context import Context
from codedance_verl.types import Verdict

NAMES = sorted(KINDS)


def _item(name: str, level: int, index: int, seed: int = 7, split: Split = Split.TRAIN) -> Item:
    return draw_item(name, KINDS[name].settings(level, {}), seed, split, index)


def _pixels(item: Item) -> bytes:
    return b"".join(image.tobytes() for image in item.images)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_arguments_give_the_same_item_and_others_do_not(name: str) -> None:
    first, again = _item(name, 3, 5), _item(name, 3, 5)
    assert (first.question, first.answer, first.regions) == (again.question, again.answer, again.regions)
    assert _pixels(first) == _pixels(again)
    others = [
        _item(name, 3, 6),
        _item(name, 3, 5, seed=8),
        _item(name, 3, 5, split=Split.VALIDATION),
        _item(name, 2, 5),
    ]
    assert _pixels(first) not in [_pixels(item) for item in others]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("level", LEVELS)
def test_evidence_lies_inside_of_the_image_and_measures_are_numbers(name: str, level: int) -> None:
    for index in range(4):
        item = _item(name, level, index)
        for region in item.regions:
            left, top, right, bottom = region.box
            width, height = item.images[region.image].size
            assert 0 <= left < right <= width and 0 <= top < bottom <= height
            around = (max(0, left - 2), max(0, top - 2), min(width, right + 2), min(height, bottom + 2))
            assert np.asarray(item.images[region.image].crop(around)).std((0, 1)).max() > 0  # something is drawn there
        assert item.regions and all(np.isfinite(value) for value in item.measures.values())


@pytest.mark.parametrize("name", NAMES)
def test_the_grader_takes_the_answer_and_no_other_one(name: str) -> None:
    items = [_item(name, level, index) for level in (1, 5) for index in range(6)]
    answers = sorted({item.answer for item in items})
    for number, item in enumerate(items):
        context = Context(question=item.question)
        for answer in {item.answer, *(answers[(number + step) % len(answers)] for step in (0, 1))}:
            verdict = grade(answer, item.answer, context=context).verdict
            assert verdict == (Verdict.CORRECT if answer == item.answer else Verdict.WRONG), (answer, item)


@pytest.mark.parametrize("name", NAMES)
def test_no_answer_is_a_safe_guess(name: str) -> None:
    """No single answer is right for two questions in five."""
    found = Counter(_item(name, 3, index).answer for index in range(100))
    assert max(found.values()) < 40


def _phrasings() -> list[Phrasings]:
    found = [geometry._PHRASINGS]
    for module in (spatial, tables, noisy_colour, several_images):
        found += module._PHRASINGS.values()
    return found


def test_the_test_split_has_wordings_of_its_own() -> None:
    for phrasings in _phrasings():
        assert phrasings.held_out and not set(phrasings.seen) & set(phrasings.held_out)


def test_a_level_sets_all_dials_and_own_values_take_their_place() -> None:
    kind = KINDS["spatial"]
    assert kind.settings(1, {})["objects"] < kind.settings(5, {})["objects"]
    assert kind.settings(1, {"objects": 9, "rows": 3}) == {**kind.settings(1, {}), "objects": 9}
    with pytest.raises(UserError, match="--level is 6; choose 1 to 5"):
        kind.settings(6, {})
    with pytest.raises(UserError, match=r"--dial objects=99 is out of range; choose 3 to 30"):
        parse_dials(["objects=99"], [kind])
    with pytest.raises(UserError, match=r"no dial rows in spatial; there are gap \(2 to 120\), objects"):
        parse_dials(["rows=3"], [kind])
    with pytest.raises(UserError, match="write NAME=VALUE"):
        parse_dials(["objects"], [kind])
    assert parse_dials(["rows=3", "gap=9"], [kind, KINDS["table"]]) == {"rows": 3, "gap": 9}


def test_every_level_and_default_lies_in_the_range_of_its_dial() -> None:
    for kind in KINDS.values():
        for dial in kind.dials:
            assert all(dial.least <= value <= dial.most for value in dial.levels), (kind.name, dial.name)


def test_the_documentation_has_every_dial_with_its_levels_and_range() -> None:
    lines = (Path(__file__).parents[3] / "docs/data.md").read_text().splitlines()
    for kind in KINDS.values():
        (line,) = [line for line in lines if line.startswith(f"| `{kind.name}` | `")]
        for dial in kind.dials:
            assert f"`{dial.name}`" in line, (kind.name, dial.name)
            assert ", ".join(map(str, dial.levels)) in line, (kind.name, dial.name)
            assert f"({dial.least} to {dial.most})" in line, (kind.name, dial.name)


def test_dials_that_ask_too_much_are_named() -> None:
    dials = KINDS["spatial"].settings(1, {"side": 224, "objects": 30, "gap": 120})
    with pytest.raises(UserError, match=r"no spatial item with gap=120 objects=30 .* ask for fewer or smaller things"):
        draw_item("spatial", dials, 0, Split.TRAIN, 0)
    with pytest.raises(UserError, match=r"no kind spatials; choose from spatial, table, geometry"):
        kinds_of(["spatials"])


@pytest.mark.parametrize("name", NAMES)
def test_both_ends_of_each_dial_work(name: str) -> None:
    """Items come out at either end of a dial, all others as at a level that fits; a pair may ask too much."""
    kind = KINDS[name]
    for dial in kind.dials:
        for value, levels in ((dial.least, LEVELS), (dial.most, LEVELS)):
            drawn = 0
            for level in levels:
                try:
                    draw_item(name, kind.settings(level, {dial.name: value}), 0, Split.TRAIN, 0)
                    drawn += 1
                except UserError:
                    continue
                break
            assert drawn, (dial.name, value)


def test_the_view_is_a_part_of_the_side() -> None:
    assert view_scale(448, 448, 1_003_520) == 1.0
    assert view_scale(448, 448, 112 * 112) == pytest.approx(0.25)


def test_the_digest_of_the_code_is_stable() -> None:
    assert len(code_digest()) == 64 and code_digest() == code_digest()
