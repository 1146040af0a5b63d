"""Alterations of images: what changes, and that nothing else does."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from codedance_verl.harness.altered_images import LOCAL, Alteration, Box, Pixels, altered, altered_files, clipped

BOX: Box = (10, 20, 40, 50)


def picture(seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (120, 160, 3), dtype=np.uint8)


def inside(box: Box) -> np.ndarray:
    mask = np.zeros((120, 160), dtype=bool)
    mask[box[1] : box[3], box[0] : box[2]] = True
    return mask


@pytest.mark.parametrize("alteration", LOCAL)
def test_greyed_evidence_changes_no_other_pixel(alteration: Alteration) -> None:
    image = picture()
    changed = (altered(image, [BOX], alteration) != image).any(axis=2)
    assert changed[30:40, 20:30].all() and not changed[~inside(BOX)].any()
    if alteration is Alteration.CORE:
        assert not changed[20:26].any(), "the rim of the box stays"


def test_swapped_regions_have_changed_places() -> None:
    image = picture()
    found = altered(image, [BOX], Alteration.SWAPPED)
    assert sorted(found.reshape(-1, 3).tolist()) == sorted(image.reshape(-1, 3).tolist())
    places = [
        (x, y) for y in range(91) for x in range(131) if (found[y : y + 30, x : x + 30] == image[20:50, 10:40]).all()
    ]
    ((x, y),) = places
    assert x >= 40 or y >= 50
    assert (found[20:50, 10:40] == image[y : y + 30, x : x + 30]).all()


def test_moved_evidence_leaves_the_colour_around_it() -> None:
    image = np.full((120, 160, 3), 90, np.uint8)
    image[20:50, 10:40] = (200, 10, 10)
    found = altered(image, [BOX], Alteration.MOVED)
    assert (found[20:50, 10:40] == 90).all() and (found == (200, 10, 10)).all(axis=2).sum() == 900


@pytest.mark.parametrize("alteration", [Alteration.MOVED, Alteration.SWAPPED])
def test_evidence_without_room_elsewhere_is_turned(alteration: Alteration) -> None:
    image = picture()
    assert (altered(image, [(0, 0, 160, 120)], alteration) == image[::-1, ::-1]).all()


def test_several_boxes_stay_apart() -> None:
    image, boxes = picture(), [BOX, (100, 60, 130, 90)]
    found = altered(image, boxes, Alteration.SWAPPED)
    for left, top, right, bottom in boxes:
        assert (found[top:bottom, left:right] != image[top:bottom, left:right]).any()
    assert sorted(found.reshape(-1, 3).tolist()) == sorted(image.reshape(-1, 3).tolist())


def test_a_uniform_grey_region_changes_too() -> None:
    image = np.full((50, 50, 3), 128, np.uint8)
    assert (altered(image, [(5, 5, 20, 20)], Alteration.GREYED)[5:20, 5:20] != 128).all()


def test_boxes_are_cut_and_empty_ones_left_out() -> None:
    boxes = [(-5, -5, 10, 10), (150, 110, 900, 900), (5, 5, 5, 9), (300, 0, 400, 9)]
    assert clipped(boxes, picture()) == [(0, 0, 10, 10), (150, 110, 160, 120)]


def test_files_of_other_images_stay_unless_all_are_replaced() -> None:
    files = []
    for seed in range(2):
        file = io.BytesIO()
        Image.fromarray(picture(seed)).save(file, "PNG")
        files.append(file.getvalue())
    found = altered_files(files, [BOX], Alteration.GREYED)
    assert found[0] != files[0] and found[1] is files[1]
    sizes = [Image.open(io.BytesIO(data)).size for data in altered_files(files, [BOX], Alteration.LARGER)]
    assert sizes == [(176, 132)] * 2
    assert all(map(np.any, (altered(picture(), [], Alteration.NOISE) != picture(), sizes)))
