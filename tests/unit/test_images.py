"""The one way in which images are decoded: upright, on white, 8 bits, RGB."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from codedance_verl.images import as_rgb, decode, pixels_sha256, shown_size

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def with_orientation(value: int, kind: str = "PNG") -> bytes:
    """A stored image of 4 x 2 pixels, its upper left one red, that says it is to be turned."""
    image = Image.new("RGB", (4, 2), BLUE)
    image.putpixel((0, 0), RED)
    exif = Image.Exif()
    exif[0x0112] = value
    return encoded(image, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))


def half_transparent(mode: str) -> Image.Image:
    image = Image.new("RGBA", (2, 1), (*RED, 255))
    image.putpixel((1, 0), (0, 0, 0, 0))
    return image.convert(mode)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
@pytest.mark.parametrize(
    ("value", "corner"),
    [(1, (0, 0)), (2, (3, 0)), (3, (3, 1)), (4, (0, 1)), (5, (0, 0)), (6, (1, 0)), (7, (1, 3)), (8, (0, 3))],
)
def test_images_are_upright(value: int, corner: tuple[int, int], kind: str) -> None:
    data = with_orientation(value, kind)
    image = decode(data)
    assert image.size == shown_size(data) == ((4, 2) if value < 5 else (2, 4))
    assert image.getpixel(corner) == RED


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_pixels_are_white(mode: str) -> None:
    assert decode(encoded(half_transparent(mode))).getpixel((1, 0)) == WHITE


def test_a_transparent_colour_of_a_palette_is_white() -> None:
    image = Image.new("P", (2, 1), 0)
    image.putpalette([*RED, 0, 0, 0])
    image.putpixel((1, 0), 1)
    shown = decode(encoded(image, transparency=1))
    assert [shown.getpixel((x, 0)) for x in range(2)] == [RED, WHITE]


def test_deep_pixels_are_stretched_and_fractions_scaled() -> None:
    deep = np.array([[0, 30_000, 65_535]], np.uint16)
    assert [decode(encoded(Image.fromarray(deep))).getpixel((x, 0))[0] for x in range(3)] == [0, 116, 255]
    fractions = np.array([[0.0, 0.5, 1.0]], np.float32)
    assert [decode(encoded(Image.fromarray(fractions), "TIFF")).getpixel((x, 0))[0] for x in range(3)] == [0, 127, 255]


def test_broken_metadata_cost_no_image() -> None:
    data = encoded(Image.new("RGB", (3, 2), RED), exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert decode(data).getpixel((0, 0)) == RED
    assert shown_size(data) == (3, 2)


@pytest.mark.parametrize("data", [b"", b"junk", encoded(Image.new("RGB", (64, 64)))[:60]])
def test_what_is_no_image_is_an_error(data: bytes) -> None:
    with pytest.raises((OSError, SyntaxError, ValueError)):
        decode(data)


def test_equal_pixels_have_one_hash() -> None:
    image = Image.new("RGB", (6, 4), RED)
    assert pixels_sha256(image) == pixels_sha256(decode(encoded(image, "BMP")))
    assert pixels_sha256(image) != pixels_sha256(Image.new("RGB", (4, 6), RED))


def with_exif_entries(*entries: tuple[int, int, bytes]) -> bytes:
    """A JPEG of 4 x 2 pixels whose EXIF block has these entries: tag, type, and four bytes of the value."""
    block = b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(entries))
    block += b"".join(struct.pack("<HHI", tag, kind, 1) + value for tag, kind, value in entries) + bytes(4)
    return encoded(Image.new("RGB", (4, 2), BLUE), "JPEG", exif=block)


@pytest.mark.parametrize(
    "broken",
    [(0x011A, 2, b"A\0\0\0"), (0x0128, 2, b"A\0\0\0"), (0x0213, 2, b"A\0\0\0"), (0x010F, 11, b"\0\0\0\0")],
)
def test_a_turned_image_with_other_metadata_broken_is_turned(broken: tuple[int, int, bytes]) -> None:
    data = with_exif_entries((0x0112, 3, struct.pack("<HH", 6, 0)), broken)
    assert decode(data).size == shown_size(data) == (2, 4)


def test_an_image_is_turned_once_wherever_its_orientation_stands() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    from PIL.PngImagePlugin import PngInfo

    profile = PngInfo()
    profile.add_text("Raw profile type exif", f"\nexif\n{len(exif.tobytes())}\n{exif.tobytes().hex()}\n", zip=True)
    stored = Image.new("RGB", (4, 2), BLUE)
    tagged = io.BytesIO()
    stored.save(tagged, "TIFF", tiffinfo={0x0112: 6})
    for data in (encoded(stored, pnginfo=profile), tagged.getvalue(), with_orientation(6)):
        shown = decode(data)
        assert shown.size == shown_size(data) == (2, 4)
        assert as_rgb(shown) is shown
