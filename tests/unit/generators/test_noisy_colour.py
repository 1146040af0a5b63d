"""Tinted squares under noise, found again by their means."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest

from codedance_verl.generators.choices import Split
from codedance_verl.generators.item import Item
from codedance_verl.generators.kinds import KINDS, draw_item
from tests.unit.generators import readers

KIND = KINDS["noisy_colour"]


def _items(level: int, count: int, split: Split = Split.TRAIN, **dials: int) -> list[Item]:
    return [draw_item("noisy_colour", KIND.settings(level, dials), 4, split, index) for index in range(count)]


def _tinted(means: np.ndarray) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """The colour that most squares have, and the places (row, column) of those that have another."""
    common = np.array(Counter(map(tuple, means.reshape(-1, 3).tolist())).most_common(1)[0][0])
    return common, [(int(row), int(column)) for row, column in np.argwhere((means != common).any(-1))]


@pytest.mark.parametrize("split", [Split.TRAIN, Split.TEST])
@pytest.mark.parametrize("level", [1, 2, 3, 4, 5])
def test_the_answer_is_what_the_means_of_the_pixels_say(level: int, split: Split) -> None:
    dials = KIND.settings(level, {})
    for item in _items(level, 9, split):
        squares = readers.board(item.images[0])
        assert squares.shape == (*[dials["cells"]] * 2, *[dials["size"]] * 2, 3)
        means = squares.mean((2, 3))
        common, tinted = _tinted(means)
        offset = means[tinted[0]] - common
        # the noise adds up to nothing: the means are whole numbers, the tint the contrast exactly
        assert offset.max() == dials["contrast"] and sorted(offset)[:2] == [-dials["contrast"] / 2] * 2
        tint = ("red", "green", "blue")[int(offset.argmax())]
        row, column = tinted[0]
        if re.search("(?i)such as B2", item.question):
            assert item.answer == f"{'ABCDEFGH'[column]}{row + 1}" and len(tinted) == 1
        elif item.answer.isdigit():
            assert item.answer == str(len(tinted)) and f"{tint}" in item.question
        else:
            assert item.answer == tint and len(tinted) == 1


def test_evidence_is_the_tinted_squares() -> None:
    for item in _items(2, 12):
        size = KIND.settings(2, {})["size"]
        _, tinted = _tinted(readers.board(item.images[0]).mean((2, 3)))
        assert {region.label for region in item.regions} == {f"{'ABCD'[column]}{row + 1}" for row, column in tinted}
        for region in item.regions:
            assert np.asarray(item.images[0].crop(region.box)).shape == (size, size, 3)
            mean = np.asarray(item.images[0].crop(region.box), float).mean((0, 1))
            assert mean == pytest.approx(np.round(mean))


def _told_by_a_pixel(items: list[Item]) -> float:
    """Share of pixels of tinted squares that are nearer to the tinted colour than to the common one."""
    shares = []
    for item in items:
        squares = readers.board(item.images[0])
        means = squares.mean((2, 3))
        common, tinted = _tinted(means)
        pixels = squares[tinted[0]].reshape(-1, 3)
        own = np.abs(pixels - means[tinted[0]]).sum(-1) < np.abs(pixels - common).sum(-1)
        shares.append(float(own.mean()))
    return float(np.mean(shares))


def test_noise_and_contrast_decide_what_a_single_pixel_tells() -> None:
    shares = [
        _told_by_a_pixel(_items(3, 6, noise=noise, contrast=contrast))
        for noise, contrast in ((0, 20), (20, 20), (60, 20), (60, 4))
    ]
    assert shares[0] == 1.0
    assert shares[0] > shares[1] > shares[2] > shares[3]
    assert shares[3] < 0.6
    by_level = [_told_by_a_pixel(_items(level, 6)) for level in (1, 2, 3, 4, 5)]
    assert by_level == sorted(by_level, reverse=True)
    assert [any(item.needs_code for item in _items(level, 3)) for level in (1, 2, 3, 4, 5)] == [
        False,
        False,
        True,
        True,
        True,
    ]
