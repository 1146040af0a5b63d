"""Spatial relations of coloured objects: which one is nearest, farthest, nearer; how many lie on one side.

The dial `gap` bounds the pixels by which the lengths that decide differ. Of all questions that a layout has with at
least that much, one of the closest is asked.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from codedance_verl.generators.choices import Phrasings, Split, choose
from codedance_verl.generators.dials import Dial, Dials, Kind
from codedance_verl.generators.drawing import DoesNotFit
from codedance_verl.generators.item import Item, Region, view_scale
from codedance_verl.generators.things import MOST_THINGS, NAMING, Thing, draw_looks, lay

NAME = "spatial"

_LEGIBLE_GAP = 6.0
"""Pixels of the view below which a difference of two lengths is taken to need code."""

_CLOSEST = 2
"""Questions with the smallest margins, of which one is asked."""

_RULE = " Places and distances are those of the middles of the objects."

_PHRASINGS = {
    "count": Phrasings(
        seen=("How many objects are {side} {reference}?", "Count the objects that lie {side} {reference}."),
        held_out=("What is the number of objects {side} {reference}?",),
    ),
    "nearest": Phrasings(
        seen=("Which object is nearest to {reference}?", "Name the object that is closest to {reference}."),
        held_out=("Of the other objects, which has the smallest distance to {reference}?",),
    ),
    "farthest": Phrasings(
        seen=("Which object is farthest from {reference}?", "Name the object that is most distant from {reference}."),
        held_out=("Of the other objects, which has the largest distance to {reference}?",),
    ),
    "nearer": Phrasings(
        seen=(
            "Which is nearer to {reference}, the {first} or the {second}?",
            "Is the {first} or the {second} closer to {reference}? Name the object.",
        ),
        held_out=("Name the one with the smaller distance to {reference}: the {first} or the {second}.",),
    ),
}

_SIDES = (
    ("to the left of", 0, -1),
    ("to the right of", 0, 1),
    ("above", 1, -1),
    ("below", 1, 1),
)
"""Words, axis and sign of the difference that an object on that side has."""


@dataclass(frozen=True)
class _Reference:
    """Object that a question starts from, as words name it, with the margin by which they do."""

    words: str
    thing: Thing
    margin: float
    seen: tuple[Thing, ...]


@dataclass(frozen=True)
class _Candidate:
    """Question that could be asked. `margin`: pixels by which the decisive lengths differ, the smallest of them."""

    form: str
    fields: dict[str, str]
    answer: str
    margin: float
    seen: tuple[Thing, ...]


def distance(first: Thing, second: Thing) -> float:
    """Pixels between the middles of two objects."""
    return math.dist(first.middle, second.middle)


def _references(things: Sequence[Thing], steps: int) -> list[_Reference]:
    found = [_Reference(f"the {thing.name}", thing, math.inf, (thing,)) for thing in things]
    for _ in range(1, steps):
        following = [_next_reference(reference, things) for reference in found]
        # a chain that leads back names its end, or is a shorter one
        found = [reference for reference in following if reference.thing not in reference.seen[:-1]]
    return found


def _next_reference(reference: _Reference, things: Sequence[Thing]) -> _Reference:
    # a chain is as uncertain as its least certain step
    near, second = _by_distance(reference.thing, things)[:2]
    margin = distance(reference.thing, second) - distance(reference.thing, near)
    words = f"the object that is nearest to {reference.words}"
    return _Reference(words, near, min(reference.margin, margin), (*reference.seen, near))


def _by_distance(reference: Thing, things: Sequence[Thing]) -> list[Thing]:
    """The other objects, the nearest first."""
    return sorted((thing for thing in things if thing is not reference), key=lambda thing: distance(reference, thing))


def _count(reference: _Reference, things: Sequence[Thing]) -> Iterator[_Candidate]:
    others = [thing for thing in things if thing is not reference.thing]
    for words, axis, sign in _SIDES:
        offsets = [sign * (thing.middle[axis] - reference.thing.middle[axis]) for thing in others]
        there = tuple(thing for thing, offset in zip(others, offsets, strict=True) if offset > 0)
        # the object closest to the dividing line, on either side of it
        margin = min(reference.margin, min(map(abs, offsets)))
        fields = {"reference": reference.words, "side": words}
        yield _Candidate("count", fields, str(len(there)), margin, (*reference.seen, *there))


def _nearest(reference: _Reference, things: Sequence[Thing]) -> Iterator[_Candidate]:
    near, second = _by_distance(reference.thing, things)[:2]
    margin = distance(reference.thing, second) - distance(reference.thing, near)
    if near not in reference.seen:  # else the question names its answer
        yield _named("nearest", reference, near, margin)


def _farthest(reference: _Reference, things: Sequence[Thing]) -> Iterator[_Candidate]:
    second, far = _by_distance(reference.thing, things)[-2:]
    margin = distance(reference.thing, far) - distance(reference.thing, second)
    yield _named("farthest", reference, far, margin)


def _nearer(reference: _Reference, things: Sequence[Thing]) -> Iterator[_Candidate]:
    # neighbours in the order of distance: two others differ by more
    others = _by_distance(reference.thing, things)
    for near, far in itertools.pairwise(others):
        if near in reference.seen or far in reference.seen:
            continue
        margin = min(reference.margin, distance(reference.thing, far) - distance(reference.thing, near))
        fields = {"reference": reference.words, "first": near.name, "second": far.name}
        yield _Candidate("nearer", fields, near.name, margin, (*reference.seen, near, far))


def _named(form: str, reference: _Reference, thing: Thing, margin: float) -> _Candidate:
    fields = {"reference": reference.words}
    return _Candidate(form, fields, thing.name, min(reference.margin, margin), (*reference.seen, thing))


_FORMS: dict[str, Callable[[_Reference, Sequence[Thing]], Iterator[_Candidate]]] = {
    "count": _count,
    "nearest": _nearest,
    "farthest": _farthest,
    "nearer": _nearer,
}


def _ask(rng: np.random.Generator, things: Sequence[Thing], dials: Dials) -> _Candidate:
    # the form first: else the one with the most candidates would be asked nearly always
    form = choose(rng, tuple(_FORMS))
    references = _references(things, dials["steps"])
    found = [candidate for reference in references for candidate in _FORMS[form](reference, things)]
    fitting = sorted((item for item in found if item.margin >= dials["gap"]), key=lambda item: item.margin)
    if not fitting:
        raise DoesNotFit
    asked = choose(rng, tuple(fitting[:_CLOSEST]))
    if form == "nearer" and rng.random() < 0.5:  # else the first one named would always be the answer
        swapped = {"first": asked.fields["second"], "second": asked.fields["first"]}
        return replace(asked, fields={**asked.fields, **swapped})
    return asked


def draw(rng: np.random.Generator, split: Split, dials: Dials, view_pixels: int) -> Item:
    side = dials["side"]
    looks = draw_looks(rng, dials["objects"])
    image, things = lay(rng, looks, side, (max(9, side // 20), max(13, side // 12)))
    asked = _ask(rng, things, dials)
    question = _PHRASINGS[asked.form].pick(rng, split, **asked.fields)
    return Item(
        question=question + _RULE + (NAMING if asked.form in ("nearest", "farthest") else ""),
        answer=asked.answer,
        images=(image,),
        regions=tuple(Region(thing.name, thing.box) for thing in dict.fromkeys(asked.seen)),
        needs_code=asked.margin * view_scale(side, side, view_pixels) < _LEGIBLE_GAP or dials["steps"] > 1,
        measures={"gap_px": asked.margin, "objects": len(things)},
    )


KIND = Kind(
    NAME,
    (
        Dial("side", "side of the image in pixels", (336, 448, 448, 672, 896), 224, 4096),
        Dial("objects", "objects", (3, 5, 8, 12, 16), 3, MOST_THINGS),
        Dial("gap", "least difference of the decisive lengths in pixels", (60, 32, 16, 8, 4), 2, 120),
        Dial("steps", "objects that lead to one another", (1, 1, 1, 2, 3), 1, 4),
    ),
    draw,
)
