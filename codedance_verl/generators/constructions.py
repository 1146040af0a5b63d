"""Constructions of plane geometry whose points all lie on whole pixels, so that the answer is exact.

Each one is drawn from its result: the given points are the target plus whole vectors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from codedance_verl.generators.choices import choose
from codedance_verl.generators.drawing import DoesNotFit

Place = tuple[int, int]
"""Column and row in pixels; as a vector, the difference of two."""

DEGENERATE = 0.3
"""Sine of the angle of two lines below which where they cross is badly defined."""


@dataclass(frozen=True)
class Construction:
    """A point that words define by given ones.

    Attributes:
        words: sentence that names what is sought, of the points A, B, C, ...
        given: places of these, by letter.
        target: place of what is sought.
    """

    words: str
    given: Mapping[str, Place]
    target: Place


def _plus(place: Place, vector: Place, factor: int = 1) -> Place:
    return place[0] + factor * vector[0], place[1] + factor * vector[1]


def _across(vector: Place) -> Place:
    return -vector[1], vector[0]


def _inside(rng: np.random.Generator, side: int) -> Place:
    low, high = side // 4, side - side // 4
    return int(rng.integers(low, high)), int(rng.integers(low, high))


def _vector(rng: np.random.Generator, side: int) -> Place:
    """A whole vector of an eighth to a third of the side."""
    length, angle = rng.uniform(side / 8, side / 3), rng.uniform(0, 2 * math.pi)
    return round(length * math.cos(angle)), round(length * math.sin(angle))


def _direction(rng: np.random.Generator) -> Place:
    """A short whole vector, of which multiples make long ones on one line."""
    found = int(rng.integers(-9, 10)), int(rng.integers(-9, 10))
    if not any(found):
        raise DoesNotFit
    return found


def _steps(rng: np.random.Generator, direction: Place, side: int) -> int:
    """A multiple of a direction that is an eighth to a third of the side long."""
    # none where two neighbouring multiples lie on both sides of the range
    length = math.hypot(*direction)
    least, most = math.ceil(side / 8 / length), int(side / 3 / length)
    if most < least:
        raise DoesNotFit
    return int(rng.integers(least, most + 1))


def _sine(first: Place, second: Place) -> float:
    return abs(first[0] * second[1] - first[1] * second[0]) / (math.hypot(*first) * math.hypot(*second))


def _refuse_flat(first: Place, second: Place) -> None:
    if _sine(first, second) < DEGENERATE:
        raise DoesNotFit


def midpoint(rng: np.random.Generator, side: int) -> Construction:
    target, half = _inside(rng, side), _vector(rng, side)
    return Construction("the midpoint of A and B", {"A": _plus(target, half), "B": _plus(target, half, -1)}, target)


def fourth_corner(rng: np.random.Generator, side: int) -> Construction:
    target, first, second = _inside(rng, side), _vector(rng, side), _vector(rng, side)
    _refuse_flat(first, second)
    # D is the target: A and C lie beside it, B opposite
    given = {"A": _plus(target, first), "B": _plus(_plus(target, first), second), "C": _plus(target, second)}
    return Construction("the fourth corner D of the parallelogram ABCD, opposite B", given, target)


def crossing(rng: np.random.Generator, side: int) -> Construction:
    target, first, second = _inside(rng, side), _direction(rng), _direction(rng)
    _refuse_flat(first, second)
    given = {
        "A": _plus(target, first, _steps(rng, first, side)),
        "B": _plus(target, first, -_steps(rng, first, side)),
        "C": _plus(target, second, _steps(rng, second, side)),
        "D": _plus(target, second, -_steps(rng, second, side)),
    }
    return Construction("the point where the lines AB and CD cross", given, target)


def foot(rng: np.random.Generator, side: int) -> Construction:
    given, target = _line_and_foot(rng, side)
    return Construction("the foot of the perpendicular from C to the line AB", given, target)


def mirrored(rng: np.random.Generator, side: int) -> Construction:
    given, middle = _line_and_foot(rng, side)
    # the foot is the middle of a point and its mirror image
    target = 2 * middle[0] - given["C"][0], 2 * middle[1] - given["C"][1]
    return Construction("the mirror image of C in the line AB", given, target)


def _line_and_foot(rng: np.random.Generator, side: int) -> tuple[dict[str, Place], Place]:
    """Points A and B of a line, C beside it, and the foot of C on it."""
    middle, along = _inside(rng, side), _direction(rng)
    across = _across(along)  # whole too, so that the foot and all multiples are pixels
    given = {
        "A": _plus(middle, along, _steps(rng, along, side)),
        "B": _plus(middle, along, -_steps(rng, along, side)),
        "C": _plus(middle, across, choose(rng, (-1, 1)) * _steps(rng, across, side)),
    }
    return given, middle


def centroid(rng: np.random.Generator, side: int) -> Construction:
    target, first, second = _inside(rng, side), _vector(rng, side), _vector(rng, side)
    _refuse_flat(first, second)
    # three vectors that add up to nothing have their common start as centroid
    third = -first[0] - second[0], -first[1] - second[1]
    given = {name: _plus(target, vector) for name, vector in zip("ABC", (first, second, third), strict=True)}
    return Construction("the centroid of the triangle ABC, where its medians meet", given, target)


def circle_centre(rng: np.random.Generator, side: int) -> Construction:
    target, (x, y) = _inside(rng, side), _vector(rng, side)
    # of a whole vector, eight mirrored ones have whole numbers and the same length
    turned = [(x, y), (-x, y), (x, -y), (-x, -y), (y, x), (-y, x), (y, -x), (-y, -x)]
    chosen = [turned[index] for index in rng.permutation(8)[:3].tolist()]
    given = {name: _plus(target, vector) for name, vector in zip("ABC", chosen, strict=True)}
    # points that lie close together say little about the centre
    sides = [(given[b][0] - given[a][0], given[b][1] - given[a][1]) for a, b in ("AB", "AC", "BC")]
    if min(math.hypot(*vector) for vector in sides) < side / 8:
        raise DoesNotFit
    _refuse_flat(sides[0], sides[1])
    return Construction("the centre of the circle through A, B and C", given, target)


def mirrored_midpoint(rng: np.random.Generator, side: int) -> Construction:
    first = mirrored(rng, side)
    return _by_midpoint(rng, side, first, "the mirror image of the midpoint of C and D in the line AB")


def foot_of_midpoint(rng: np.random.Generator, side: int) -> Construction:
    first = foot(rng, side)
    return _by_midpoint(rng, side, first, "the foot of the perpendicular from the midpoint of C and D to the line AB")


def _by_midpoint(rng: np.random.Generator, side: int, first: Construction, words: str) -> Construction:
    """A construction whose C is now the midpoint of two points C and D."""
    half = _vector(rng, side)
    middle = first.given["C"]
    return Construction(words, {**first.given, "C": _plus(middle, half), "D": _plus(middle, half, -1)}, first.target)


def median_crossing(rng: np.random.Generator, side: int) -> Construction:
    first = crossing(rng, side)
    half, middle = _vector(rng, side), first.given["D"]
    given = {**first.given, "D": _plus(middle, half), "E": _plus(middle, half, -1)}
    words = "the point where the line AB crosses the line through C and the midpoint of D and E"
    return Construction(words, given, first.target)


CONSTRUCTIONS: dict[int, tuple[Callable[[np.random.Generator, int], Construction], ...]] = {
    1: (midpoint, fourth_corner),
    2: (crossing, foot, mirrored, centroid, circle_centre),
    3: (mirrored_midpoint, foot_of_midpoint, median_crossing),
}
"""Constructions by what they take: a ruler, ruler and compass, or one upon another."""
