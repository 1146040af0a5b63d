"""Constructions, solved again in floating point from the points that the pixels show."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping

import numpy as np
import pytest

from codedance_verl.generators.choices import Split
from codedance_verl.generators.item import Item
from codedance_verl.generators.kinds import KINDS, draw_item
from tests.unit.generators import readers

KIND = KINDS["geometry"]
Points = Mapping[str, np.ndarray]


def _items(level: int, count: int, split: Split = Split.TRAIN, **dials: int) -> list[Item]:
    return [draw_item("geometry", KIND.settings(level, dials), 3, split, index) for index in range(count)]


def _cross(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Where the lines ab and cd meet."""
    found = np.linalg.solve(np.stack([b - a, c - d], axis=1), c - a)
    return a + found[0] * (b - a)


def _foot(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    along = b - a
    return a + along * ((c - a) @ along) / (along @ along)


def _centre(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """The point as far from a as from b and c."""
    return np.linalg.solve(2 * np.stack([b - a, c - a]), np.array([b @ b - a @ a, c @ c - a @ a]))


_SOLUTIONS: dict[str, Callable[[Points], np.ndarray]] = {
    "the mirror image of the midpoint of C and D": lambda p: 2 * _foot(p["A"], p["B"], m := (p["C"] + p["D"]) / 2) - m,
    "the foot of the perpendicular from the midpoint of C and D": lambda p: _foot(
        p["A"], p["B"], (p["C"] + p["D"]) / 2
    ),
    "crosses the line through C and the midpoint of D and E": lambda p: _cross(
        p["A"], p["B"], p["C"], (p["D"] + p["E"]) / 2
    ),
    "the midpoint of A and B": lambda p: (p["A"] + p["B"]) / 2,
    "the fourth corner D of the parallelogram ABCD": lambda p: p["A"] + p["C"] - p["B"],
    "the lines AB and CD cross": lambda p: _cross(p["A"], p["B"], p["C"], p["D"]),
    "the foot of the perpendicular from C": lambda p: _foot(p["A"], p["B"], p["C"]),
    "the mirror image of C": lambda p: 2 * _foot(p["A"], p["B"], p["C"]) - p["C"],
    "the centroid of the triangle ABC": lambda p: (p["A"] + p["B"] + p["C"]) / 3,
    "the centre of the circle through A, B and C": lambda p: _centre(p["A"], p["B"], p["C"]),
}


def _solve(question: str, points: Points) -> np.ndarray:
    return next(solution for words, solution in _SOLUTIONS.items() if words in question)(points)


def _text(item: Item) -> int:
    return max(13, item.images[0].width // 56)


@pytest.mark.parametrize("split", [Split.TRAIN, Split.TEST])
@pytest.mark.parametrize("level", [1, 2, 3, 4, 5])
def test_the_answer_is_what_the_pixels_say(level: int, split: Split) -> None:
    for item in _items(level, 12, split):
        given, numbered = readers.labelled_points(item.images[0], _text(item))
        assert len(numbered) == KIND.settings(level, {})["candidates"]
        target = _solve(item.question, given)
        assert numbered[item.answer] == pytest.approx(target, abs=1e-6), item.question
        others = [float(np.hypot(*(place - target))) for name, place in numbered.items() if name != item.answer]
        assert min(others) == pytest.approx(item.measures["decoy_px"])


def test_named_points_and_evidence_are_where_they_are_drawn() -> None:
    for item in _items(3, 8):
        given, numbered = readers.labelled_points(item.images[0], _text(item))
        seen = {**given, **numbered}
        assert {point.label: (point.x, point.y) for point in item.points} == {
            name: pytest.approx(place) for name, place in seen.items()
        }
        assert {region.label for region in item.regions} == {*given, item.answer}
        for region in item.regions:
            left, top, right, bottom = region.box
            x, y = seen[region.label]
            assert left < x < right and top < y < bottom


def test_all_constructions_come_up() -> None:
    for steps, expected in ((1, 2), (2, 5), (3, 3)):
        found = Counter(
            next(words for words in _SOLUTIONS if words in item.question) for item in _items(3, 60, steps=steps)
        )
        assert len(found) == expected


def _hit(items: list[Item], error: float) -> float:
    """Share of items where a construction from points seen with an error of some pixels hits the right one."""
    rng = np.random.default_rng(0)
    right = 0
    for item in items:
        points = {point.label: np.array([point.x, point.y]) for point in item.points}
        target = _solve(item.question, {name: place + rng.normal(0, error, 2) for name, place in points.items()})
        numbered = [name for name in points if name.isdigit()]
        right += min(numbered, key=lambda name: float(np.hypot(*(points[name] - target)))) == item.answer
    return right / len(items)


def test_the_dial_decoy_decides_how_exact_a_construction_has_to_be() -> None:
    far, near = (_items(3, 80, decoy=decoy) for decoy in (40, 12))
    for items, decoy in ((far, 40), (near, 12)):
        # places are whole pixels
        assert all(decoy <= item.measures["decoy_px"] <= 1.3 * decoy + 1 for item in items)
    assert _hit(far, 12.0) > 0.9
    assert _hit(near, 12.0) < _hit(far, 12.0) - 0.1


def test_the_place_among_the_numbered_points_does_not_give_the_answer_away() -> None:
    """The point in the middle, or one of the closest pair, is right no oftener than chance and some deviations."""
    items = _items(4, 200)
    middle = closest = 0
    for item in items:
        numbered = {point.label: np.array([point.x, point.y]) for point in item.points if point.label.isdigit()}
        centre = np.mean(list(numbered.values()), axis=0)
        middle += min(numbered, key=lambda name: float(np.hypot(*(numbered[name] - centre)))) == item.answer
        pairs = [(float(np.hypot(*(numbered[a] - numbered[b]))), a) for a in numbered for b in numbered if a != b]
        closest += min(pairs)[1] == item.answer
    chance = 1 / 6
    most = 200 * chance + 3.5 * (200 * chance * (1 - chance)) ** 0.5
    assert middle < most and closest < most


def test_questions_say_what_is_given() -> None:
    for item in _items(5, 10):
        letters = set(re.findall(r"\b[A-E]{1,4}\b", item.question))
        assert set("".join(letters)) == {point.label for point in item.points if not point.label.isdigit()}


@pytest.mark.parametrize("level", [3, 4, 5])
def test_the_point_in_the_middle_of_the_given_ones_is_no_safe_guess(level: int) -> None:
    right = asked = 0
    for item in _items(level, 60):
        if re.search("the midpoint of A and B|centroid", item.question):  # whose answer it is
            continue
        places = {point.label: np.array([point.x, point.y]) for point in item.points}
        middle = np.mean([place for label, place in places.items() if label.isalpha()], axis=0)
        numbered = [label for label in places if label.isdigit()]
        right += min(numbered, key=lambda label: float(np.hypot(*(places[label] - middle)))) == item.answer
        asked += 1
    assert asked > 20 and right < 0.45 * asked
