"""The interpreter's PNG writer: any reader gets back the very pixels."""

import io

import cv2
import numpy
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from sandbox_image.codedance_interpreter import png

NOISE = numpy.random.default_rng(0).integers(0, 256, (97, 61, 3), dtype=numpy.uint8)


def drawing(width: int, height: int) -> Image.Image:
    image = Image.new("RGB", (width, height), "white")
    ImageDraw.Draw(image).ellipse((width // 4, height // 4, width // 2, height // 2), fill="red", outline="blue")
    return image


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(NOISE),
        drawing(640, 480),
        Image.new("RGB", (1, 1), (1, 2, 3)),
        Image.new("RGB", (1, 300), (1, 2, 3)),
        Image.fromarray(NOISE).resize((900, 700)),
    ],
    ids=["noise", "drawing", "pixel", "column", "large"],
)
def test_two_readers_get_back_the_pixels(image: Image.Image) -> None:
    data = png.encode(image)
    wanted: NDArray[numpy.uint8] = numpy.asarray(image)
    with Image.open(io.BytesIO(data), formats=("PNG",)) as read:
        read.verify()
    with Image.open(io.BytesIO(data)) as read:
        assert read.mode == "RGB" and (numpy.asarray(read) == wanted).all()
    assert (cv2.imdecode(numpy.frombuffer(data, numpy.uint8), cv2.IMREAD_UNCHANGED)[:, :, ::-1] == wanted).all()


def test_what_shrinks_is_packed_and_what_does_not_is_stored() -> None:
    stored = png.encode(Image.fromarray(NOISE))
    assert NOISE.nbytes < len(stored) < NOISE.nbytes + 300
    assert len(png.encode(drawing(640, 480))) < 640 * 480 * 3 // 20


def test_what_is_too_large_to_be_sent_about_is_packed() -> None:
    ramp = numpy.arange(1200 * 900 * 3, dtype=numpy.uint32).reshape(900, 1200, 3) * 2654435761 >> 28
    assert len(png.encode(Image.fromarray(ramp.astype(numpy.uint8)))) < ramp.size
