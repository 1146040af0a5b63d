"""Questions over several images: where the most are, how many in all, what is missing in one of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from codedance_verl.generators.choices import Phrasings, Split, choose
from codedance_verl.generators.dials import Dial, Dials, Kind
from codedance_verl.generators.drawing import DoesNotFit
from codedance_verl.generators.item import Item, Region, view_scale
from codedance_verl.generators.things import MOST_THINGS, NAMING, Look, Thing, draw_looks, lay

NAME = "several_images"

_MOST_OBJECTS = 12
"""Objects in all images that are gone through without code, at most."""

_LEGIBLE = 8.0
"""Side of an object in pixels of the view below which its shape is taken to be illegible without code."""

_PLURALS = {"cross": "crosses"}

_PHRASINGS = {
    "most": Phrasings(
        seen=(
            "In which image are the most {colour} {plural}? Answer with its number, the first image being 1.",
            "Which of the {images} images shows the most {colour} {plural}? Count the images from 1.",
        ),
        held_out=("Give the number, from 1, of the image with the most {colour} {plural}.",),
    ),
    "total": Phrasings(
        seen=(
            "How many {colour} {plural} are there in all {images} images together?",
            "Count the {colour} {plural} of all {images} images.",
        ),
        held_out=("What is the number of {colour} {plural} over all {images} images?",),
    ),
    "missing": Phrasings(
        seen=(
            "All {images} images show the same objects in other places, but one object is missing in one of them. "
            "Which object?",
            "One object is shown by all images but one. Which object is it?",
        ),
        held_out=("Compare the {images} images: which object is not in all of them?",),
    ),
}


@dataclass(frozen=True)
class _Asked:
    """Question with the looks of the objects of each image; objects of the look `look` are the evidence."""

    form: str
    look: Look
    answer: str
    looks: tuple[tuple[Look, ...], ...]


def _leading(rng: np.random.Generator, dials: Dials) -> list[int]:
    """Numbers of the objects asked for by image: the largest leads the second by exactly the dial `lead`."""
    lead = min(dials["lead"], dials["objects"])
    second = int(rng.integers(0, dials["objects"] - lead + 1))
    # one image comes close, the others may have as many or fewer
    others = [second, *rng.integers(0, second + 1, size=dials["images"] - 2).tolist()]
    counts = [second + lead, *others]
    return [counts[index] for index in rng.permutation(len(counts)).tolist()]


def _any(rng: np.random.Generator, dials: Dials) -> list[int]:
    """Numbers of the objects asked for by image, at least one in all."""
    counts: list[int] = rng.integers(0, dials["objects"] + 1, size=dials["images"]).tolist()
    if not any(counts):
        raise DoesNotFit
    return counts


def _counted(rng: np.random.Generator, dials: Dials, form: str) -> _Asked:
    look, *others = draw_looks(rng, MOST_THINGS)
    counts = (_leading if form == "most" else _any)(rng, dials)
    looks = []
    for count in counts:
        # filled up to the same number, so that a full image is no sign of the answer
        rest = [choose(rng, tuple(others)) for _ in range(dials["objects"] - count)]
        looks.append((*[look] * count, *rest))
    answer = str(counts.index(max(counts)) + 1) if form == "most" else str(sum(counts))
    return _Asked(form, look, answer, tuple(looks))


def _missing(rng: np.random.Generator, dials: Dials) -> _Asked:
    looks = draw_looks(rng, dials["objects"])
    without = int(rng.integers(dials["images"]))
    # each image is laid by itself, so that no place helps to compare them
    by_image = [tuple(looks[1:] if index == without else looks) for index in range(dials["images"])]
    return _Asked("missing", looks[0], " ".join(looks[0]), tuple(by_image))


def _lay_all(
    rng: np.random.Generator, looks: Sequence[Sequence[Look]], dials: Dials
) -> list[tuple[Image.Image, list[Thing]]]:
    return [lay(rng, each, dials["side"], (dials["object"], dials["object"] * 3 // 2)) for each in looks]


def draw(rng: np.random.Generator, split: Split, dials: Dials, view_pixels: int) -> Item:
    form = choose(rng, tuple(_PHRASINGS))
    asked = _missing(rng, dials) if form == "missing" else _counted(rng, dials, form)
    laid = _lay_all(rng, asked.looks, dials)
    side, objects = dials["side"], sum(len(things) for _, things in laid)
    colour, shape = asked.look
    words = {"colour": colour, "plural": _PLURALS.get(shape, f"{shape}s"), "images": len(laid)}
    return Item(
        question=_PHRASINGS[form].pick_alone(rng, split, **words) + (NAMING if form == "missing" else ""),
        answer=asked.answer,
        images=tuple(image for image, _ in laid),
        regions=tuple(
            Region(thing.name, thing.box, number)
            for number, (_, things) in enumerate(laid)
            for thing in things
            if thing.look == asked.look
        ),
        needs_code=objects > _MOST_OBJECTS or dials["object"] * view_scale(side, side, view_pixels) < _LEGIBLE,
        measures={"objects": objects, "object_px": dials["object"]},
    )


KIND = Kind(
    NAME,
    (
        Dial("side", "side of an image in pixels", (224, 280, 336, 392, 448), 112, 2048),
        Dial("images", "images", (2, 2, 3, 4, 5), 2, 8),
        Dial("objects", "objects of an image", (4, 6, 9, 12, 16), 2, MOST_THINGS),
        Dial("object", "least side of an object in pixels", (36, 30, 24, 18, 14), 9, 48),
        Dial("lead", "more of them in the image that has the most", (2, 2, 1, 1, 1), 1, 6),
    ),
    draw,
)
