"""Kinds of generated questions, and one item of a kind: the same arguments always give the same one."""

from __future__ import annotations

import functools
import hashlib
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from codedance_verl.errors import UserError
from codedance_verl.generators import geometry, noisy_colour, several_images, spatial, tables
from codedance_verl.generators.choices import Split
from codedance_verl.generators.dials import Kind
from codedance_verl.generators.drawing import DoesNotFit
from codedance_verl.generators.item import Item

KINDS: dict[str, Kind] = {
    module.NAME: module.KIND for module in (spatial, tables, geometry, noisy_colour, several_images)
}

VIEW_PIXELS = 1_003_520
"""Pixels of an image that the model sees at most, as the configuration of Qwen2.5-VL has it."""

_MOST_DRAWS = 500
"""Draws before giving up on an item; a handful is the rule, so this many mean that its dials ask too much."""


def kinds_of(names: Sequence[str]) -> list[Kind]:
    """Kinds of these names. Raises UserError for an unknown one."""
    for name in names:
        if name not in KINDS:
            raise UserError(f"no kind {name}; choose from {', '.join(KINDS)}")
    return [KINDS[name] for name in names]


def draw_item(
    kind: str, dials: Mapping[str, int], seed: int, split: Split, index: int, view_pixels: int = VIEW_PIXELS
) -> Item:
    """Item number `index` of a kind, its dials, a seed and a split.

    Raises UserError where 500 draws did not fit: too many objects for the image, say.
    """
    # a source for each item, so that none depends on how many others are drawn, in which order or process
    rng = np.random.default_rng([seed, zlib.crc32(f"{split}/{kind}/{settings_text(dials)}".encode()), index])
    for _ in range(_MOST_DRAWS):
        try:
            return KINDS[kind].draw(rng, split, dials, view_pixels)
        except DoesNotFit:
            continue
    raise UserError(
        f"no {kind} item with {settings_text(dials)} came out in {_MOST_DRAWS} draws; ask for fewer or smaller things, "
        "or for a larger image"
    )


def settings_text(dials: Mapping[str, int]) -> str:
    """Dials as one line, in the order of the alphabet."""
    return " ".join(f"{name}={value}" for name, value in sorted(dials.items()))


@functools.cache
def code_digest() -> str:
    """SHA-256 of the generators' code: files that were begun with another version are not gone on with."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
