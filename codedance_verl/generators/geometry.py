"""Geometric constructions on an image of points: one of the numbered red points is what the question describes.

The dial `decoy` is the distance of the nearest wrong point to the right one, in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw

from codedance_verl.generators.choices import Phrasings, Split, choose
from codedance_verl.generators.constructions import CONSTRUCTIONS, Construction, Place
from codedance_verl.generators.dials import Dial, Dials, Kind
from codedance_verl.generators.drawing import Box, DoesNotFit
from codedance_verl.generators.item import Item, Point, Region, view_scale
from codedance_verl.generators.lettering import ink_size, write_text

NAME = "geometry"

GIVEN, CANDIDATE = (0, 0, 0), (200, 0, 0)
_GIVEN_LETTER, _CANDIDATE_NUMBER = (40, 40, 110), (200, 90, 90)
_RADIUS = 3
_MARGIN = 24
_SPREAD = 1.3
"""Distance of a numbered point from its nearest other, over the dial, at most."""

_BY_EYE = 0.1
"""Distance of the nearest wrong point over the extent of the figure, from which the eye is taken to do."""

_LEGIBLE = 8.0
"""Pixels of the view that the nearest wrong point has to be away to be told apart."""

_GROUPS_APART = 1.5
"""Distance of two groups of numbered points over the dial, at least."""

_ROUNDED = 2.0
"""Pixels by which a point that is the middle of others may differ from it."""

_CLEARLY = 0.8
"""Distance of a label from its own point over that from any other one, at most."""

_PHRASINGS = Phrasings(
    seen=(
        "Which of the red points is {words}? Answer with its number.",
        "Construct {words}. Which red point is it? Answer with its number.",
        "One red point is {words}. Give its number.",
    ),
    held_out=(
        "Find {words}. What is the number of the red point there?",
        "What is the number of the red point that is {words}?",
    ),
)


def _construction(rng: np.random.Generator, dials: Dials) -> Construction:
    for _ in range(200):
        try:
            found = choose(rng, CONSTRUCTIONS[dials["steps"]])(rng, dials["side"])
        except DoesNotFit:
            continue
        # sums of vectors may lead out of the image, or onto another point
        places = [*found.given.values(), found.target]
        if all(_MARGIN <= value < dials["side"] - _MARGIN for place in places for value in place) and _apart(
            places, 4 * _RADIUS
        ):
            return found
    raise DoesNotFit


def _apart(places: Sequence[Place], least: float) -> bool:
    return all(
        math.dist(first, second) >= least for index, first in enumerate(places) for second in places[index + 1 :]
    )


def _cluster(rng: np.random.Generator, count: int, least: int) -> list[Place]:
    """`count` places around the first one, which is (0, 0): each has its nearest other at `least` to 1.3 `least`."""
    places = [(0, 0)]
    for _ in range(20 * count):
        if len(places) == count:
            return places
        near = choose(rng, tuple(places))
        radius, angle = rng.uniform(1.0, _SPREAD) * least, rng.uniform(0, 2 * math.pi)
        place = near[0] + round(radius * math.cos(angle)), near[1] + round(radius * math.sin(angle))
        if all(math.dist(place, other) >= least for other in places):
            places.append(place)
    raise DoesNotFit


def _candidates(rng: np.random.Generator, found: Construction, dials: Dials) -> tuple[list[Place], int]:
    """Places of the numbered points, and which of them is the target.

    They lie in groups of two or three, of which each member has its nearest other at the distance of the dial. The
    middle of the given points, near which many constructions end, has a wrong point as often as chance would have it.
    """
    side, decoy = dials["side"], dials["decoy"]
    sizes = _group_sizes(dials["candidates"])
    # the group of any candidate: each one, of whatever group, is right with the same chance
    first = int(np.searchsorted(np.cumsum(sizes), rng.integers(sum(sizes)), side="right"))
    middle = _middle(found.given.values())
    # where the middle itself is asked for, no other point can be there
    decoyed = math.dist(middle, found.target) > _ROUNDED and rng.random() >= 1 / dials["candidates"]
    for _ in range(20):
        cluster = _cluster(rng, sizes[first], decoy)
        right = int(rng.integers(len(cluster)))
        places = _moved(cluster, (found.target[0] - cluster[right][0], found.target[1] - cluster[right][1]))
        in_the_middle = decoyed
        for place, size in enumerate(sizes):
            if place != first:
                # the targets of constructions are drawn from the same square
                anchor = int(rng.integers(side // 4, side - side // 4)), int(rng.integers(side // 4, side - side // 4))
                if in_the_middle:
                    anchor, in_the_middle = middle, False
                group = _moved(_cluster(rng, size, decoy), anchor)
                if min(math.dist(a, b) for a in group for b in places) < _GROUPS_APART * decoy:
                    break
                places += group
        inside = all(_MARGIN <= value < side - _MARGIN for place in places for value in place)
        if len(places) == dials["candidates"] and inside and _apart([*places, *found.given.values()], 3 * _RADIUS):
            return places, right
    raise DoesNotFit


def _middle(places: Iterable[Place]) -> Place:
    columns, rows = zip(*places, strict=True)
    return round(sum(columns) / len(columns)), round(sum(rows) / len(rows))


def _group_sizes(count: int) -> list[int]:
    """Sizes of groups of two and three, as many of three as can be."""
    twos = {0: 0, 1: 2, 2: 1}[count % 3]
    return [3] * ((count - 2 * twos) // 3) + [2] * twos


def _moved(places: Sequence[Place], by: Place) -> list[Place]:
    return [(x + by[0], y + by[1]) for x, y in places]


def _marker(place: Place) -> Box:
    return place[0] - _RADIUS, place[1] - _RADIUS, place[0] + _RADIUS + 1, place[1] + _RADIUS + 1


def _meet(first: Box, second: Box) -> bool:
    return first[0] < second[2] and second[0] < first[2] and first[1] < second[3] and second[1] < first[3]


def _label_centre(
    label: str, place: Place, size: int, taken: Sequence[Box], others: Sequence[Place], side: int
) -> tuple[Place, Box]:
    """Place of a label around its point that meets nothing, and is clearly nearer to it than to the other points.

    Raises DoesNotFit where there is none.
    """
    width, height = ink_size(label, size)
    reach = _RADIUS + 2 + max(width, height) / 2
    # a full turn in sixteenths, from the upper right on, where labels of drawings mostly stand
    for turn in range(16):
        angle = math.pi / 8 * turn - math.pi / 4
        x, y = round(place[0] + reach * math.cos(angle) * 1.2), round(place[1] + reach * math.sin(angle) * 1.2)
        # a pixel around the ink, as letters differ in where they stand
        box = (x - width // 2 - 2, y - height // 2 - 3, x + width // 2 + 3, y + height // 2 + 4)
        inside = box[0] >= 0 and box[1] >= 0 and box[2] <= side and box[3] <= side
        own = math.dist((x, y), place)
        if any(math.dist((x, y), other) * _CLEARLY < own for other in others if other != place):
            continue
        if inside and not any(_meet(box, other) for other in taken):
            return (x, y), box
    raise DoesNotFit


def _render(given: Mapping[str, Place], numbered: Mapping[str, Place], side: int, text: int) -> Image.Image:
    image = Image.new("RGB", (side, side), (255, 255, 255))
    draw = ImageDraw.Draw(image)
    # the number of points is small, so labels are laid one by one around all markers
    points = (*given.values(), *numbered.values())
    taken = [_marker(place) for place in points]
    for places, marker, letters in ((given, GIVEN, _GIVEN_LETTER), (numbered, CANDIDATE, _CANDIDATE_NUMBER)):
        for label, place in places.items():
            left, top, right, bottom = _marker(place)
            draw.ellipse((left, top, right - 1, bottom - 1), fill=marker)
            centre, box = _label_centre(label, place, text, taken, points, side)
            taken.append(box)
            write_text(draw, label, centre, text, letters)
    return image


def draw(rng: np.random.Generator, split: Split, dials: Dials, view_pixels: int) -> Item:
    side = dials["side"]
    found = _construction(rng, dials)
    places, right = _candidates(rng, found, dials)
    # numbers in another order than that in which the points were laid
    order = rng.permutation(len(places)).tolist()
    numbered = {str(number): places[place] for number, place in enumerate(order, 1)}
    answer = str(order.index(right) + 1)
    nearest = min(math.dist(place, found.target) for place in places if place != found.target)
    extent = max(math.dist(place, found.target) for place in found.given.values())
    evidence = {**found.given, answer: found.target}
    points = {**found.given, **numbered}
    return Item(
        question=_PHRASINGS.pick(rng, split, words=found.words),
        answer=answer,
        images=(_render(found.given, numbered, side, max(13, side // 56)),),
        regions=tuple(Region(label, _around(place, side)) for label, place in evidence.items()),
        needs_code=nearest < _BY_EYE * extent or nearest * view_scale(side, side, view_pixels) < _LEGIBLE,
        points=tuple(Point(label, *place) for label, place in points.items()),
        measures={"decoy_px": nearest, "extent_px": extent},
    )


def _around(place: Place, side: int) -> Box:
    reach = 4 * _RADIUS
    return (
        max(0, place[0] - reach),
        max(0, place[1] - reach),
        min(side, place[0] + reach + 1),
        min(side, place[1] + reach + 1),
    )


KIND = Kind(
    NAME,
    (
        Dial("side", "side of the image in pixels", (448, 448, 560, 672, 896), 224, 4096),
        Dial("steps", "1 ruler, 2 ruler and compass, 3 one construction upon another", (1, 1, 2, 2, 3), 1, 3),
        Dial("candidates", "numbered points", (3, 4, 5, 6, 8), 2, 9),
        Dial("decoy", "distance of the nearest wrong point in pixels", (90, 60, 36, 24, 14), 10, 120),
    ),
    draw,
)
