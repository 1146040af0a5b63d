"""Hashes, search and pixel check on copies and on images that only look alike."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from benchmarks.audit_images import EDITS, charts, drawings, encoded, photographs
from codedance_verl.audit.hash_search import CROPPED_BITS, RECOLOURED_BITS, near_pairs
from codedance_verl.audit.image_store import Small
from codedance_verl.audit.pixel_check import COPY_SCORE, copy_score
from codedance_verl.audit.thumbnails import VIEWS, Thumbnail, hashes_of, view_hashes

ORIGINALS = {"photograph": photographs(3, 0), "chart": charts(4, 0), "drawing": drawings(3, 0)}


def thumb(image: Image.Image) -> Thumbnail:
    return Small.of(encoded(image, 95)).thumbnail()


@pytest.mark.parametrize("kind", ORIGINALS)
@pytest.mark.parametrize("edit", EDITS)
def test_copies_are_found_and_confirmed(kind: str, edit: str) -> None:
    draws = np.random.default_rng(1)
    for original in ORIGINALS[kind]:
        first, second = thumb(original), Small.of(EDITS[edit](original, draws)).thumbnail()
        assert list(near_pairs(view_hashes(first)[None], hashes_of(second)[None]))
        assert copy_score(first, second) >= COPY_SCORE
        assert copy_score(second, first) >= COPY_SCORE


@pytest.mark.parametrize("kind", ORIGINALS)
def test_images_of_one_kind_are_no_copies(kind: str) -> None:
    first, second, third, *_ = map(thumb, ORIGINALS[kind])
    assert max(copy_score(first, second), copy_score(first, third), copy_score(second, third)) < COPY_SCORE


def test_charts_of_one_template_agree_but_in_their_data() -> None:
    first, _, third, _ = map(thumb, ORIGINALS["chart"])
    whole = np.corrcoef(first[0].ravel(), third[0].ravel())[0, 1]
    assert whole > 0.6 > copy_score(first, third)


def test_red_lines_at_other_places_are_no_copies() -> None:
    first, second = Image.new("RGB", (320, 320), "white"), Image.new("RGB", (320, 320), "white")
    for image, heights in ((first, (40, 90, 250)), (second, (140, 200, 60))):
        pen = ImageDraw.Draw(image)
        pen.rectangle((20, 20, 300, 300), outline="black", width=3)
        for place, height in enumerate(heights):
            pen.line((30, height, 290, 300 - height + 10 * place), fill="red", width=5)
    assert copy_score(thumb(first), thumb(second)) < COPY_SCORE


def test_plain_images_are_no_copies() -> None:
    assert copy_score(thumb(Image.new("RGB", (90, 60), "red")), thumb(Image.new("RGB", (90, 60), "blue"))) == 0.0


def test_search_compares_every_view_and_every_hash() -> None:
    draws = np.random.default_rng(0)
    views = draws.integers(0, 2**63, (3, len(VIEWS) + 1), np.uint64)
    hashes = draws.integers(0, 2**63, (70_000, 2), np.uint64)
    flips = np.uint64((1 << CROPPED_BITS) - 1)
    hashes[4, 0] = views[1, 6] ^ flips  # in the first block, of the last view
    hashes[69_999, 1] = views[1, 7] ^ np.uint64((1 << RECOLOURED_BITS) - 1)  # in the second block
    hashes[9, 0] = views[2, 0] ^ np.uint64((1 << (CROPPED_BITS + 1)) - 1)  # a bit too far
    hashes[10, 1] = views[2, 7] ^ np.uint64((1 << (RECOLOURED_BITS + 1)) - 1)
    assert [(number, near.tolist()) for number, near in near_pairs(views, hashes)] == [(1, [4, 69_999])]


def test_a_small_image_keeps_its_shape() -> None:
    small = Small.of(encoded(Image.new("RGB", (640, 480))))
    assert small.size == (640, 480) and small.thumbnail().shape == (2, 256, 256)
