"""The comparison of two checkouts: its images, and the ratio that it prints."""

from __future__ import annotations

import io

import pytest
from PIL import Image
from rich.console import Console

from benchmarks.sandbox_cost.__main__ import IMAGES, show
from benchmarks.sandbox_cost.worker import SIDES, image


@pytest.mark.parametrize("name", IMAGES)
def test_variants_of_an_image_are_of_its_size_and_no_two_the_same(name: str) -> None:
    side, form = name.split()
    variants = [image(name, number) for number in range(6)]
    assert len(set(variants)) == 6 and image(name) == variants[0]
    with Image.open(io.BytesIO(variants[5])) as opened:
        assert opened.size == (SIDES[side],) * 2 and opened.format == form.upper()


def test_medians_and_their_ratio_are_shown_and_one_side_alone_too() -> None:
    console = Console(width=120, record=True, file=io.StringIO())
    show({"open": {"this": [3.0, 1.0, 2.0], "other": [8.0, 9.0, 7.0]}, "close": {"this": [1.5]}}, console)
    lines = [line.split() for line in console.export_text().splitlines()]
    assert next(line for line in lines if "open" in line)[3::2][:3] == ["8.00", "2.00", "0.25"]
    assert "nan" in next(line for line in lines if "close" in line)
