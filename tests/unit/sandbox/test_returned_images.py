"""Structure of images that come back, checked without decoding them, and their decoding."""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from codedance_verl.sandbox.returned_images import BadImage, decoded, undecoded, with_decoded_images
from codedance_verl.types import Execution, ExecutionStatus
from sandbox_image.codedance_interpreter import png as inner_png

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int = 4, height: int = 3, form: bytes = bytes([8, 2, 0, 0, 0]), rows: bytes | None = None) -> bytes:
    rows = (b"\0" + bytes(3 * width)) * height if rows is None else rows
    header = struct.pack(">II", width, height) + form
    return SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(1, 1), (256, 256), (900, 1200)])
def test_what_the_interpreter_writes_passes_both_checks(size: tuple[int, int]) -> None:
    data = inner_png.encode(Image.effect_noise(size, 90).convert("RGB"))
    image = undecoded(data, 2_000_000)
    assert (image.sha256, image.width, image.height, image.png) == ("", *size, data)
    execution = with_decoded_images(Execution(ExecutionStatus.OK, images=(image, image)), 2_000_000)
    assert [found.sha256 for found in execution.images] == [hashlib.sha256(data).hexdigest()] * 2
    assert [(found.width, found.height) for found in execution.images] == [size] * 2


def pillow(mode: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (4, 4)).save(buffer, "PNG", **options)
    return buffer.getvalue()


GOOD = png()
BAD = {
    "no bytes": "text",
    "nothing": b"",
    "signature alone": SIGNATURE,
    "another format": b"GIF89a" + bytes(100),
    "cut": GOOD[:-1],
    "longer": GOOD + b"x",
    "another image behind it": GOOD + GOOD,
    "no pixels": SIGNATURE + chunk(b"IHDR", GOOD[16:29]) + chunk(b"IEND", b""),
    "text chunk": GOOD[:33] + chunk(b"tEXt", b"a\0b") + GOOD[33:],
    "animation": GOOD[:33] + chunk(b"acTL", bytes(8)) + GOOD[33:],
    "two headers": GOOD[:33] + GOOD[8:],
    "a length beyond the file": GOOD[:33] + b"\xff\xff\xff\xff" + GOOD[37:],
    "too many chunks": GOOD[:33] + chunk(b"IDAT", b"") * 300 + GOOD[33:],
    "too large": png(2000, 1000),
    "no width": png(0, 5),
    "palette": pillow("P"),
    "transparent": pillow("RGBA"),
    "16 bits": png(form=bytes([16, 2, 0, 0, 0])),
    "interlaced": png(form=bytes([8, 2, 0, 0, 1])),
    "short header": SIGNATURE + chunk(b"IHDR", b"abc") + chunk(b"IDAT", b"x") + chunk(b"IEND", b""),
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD.keys())
def test_a_structure_that_the_interpreter_does_not_write_is_refused_undecoded(
    data: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("it is decoded"))
    with pytest.raises(BadImage):
        undecoded(data, 10_000)


@pytest.mark.parametrize("rows", [b"", b"\0" * 10, b"\x09" + bytes(38)], ids=["none", "few", "unknown filter"])
def test_pixels_that_cannot_be_decoded_are_found_by_the_decoder(rows: bytes) -> None:
    image = undecoded(png(rows=rows), 10_000)
    with pytest.raises(BadImage):
        decoded(image, 10_000)


def test_a_broken_checksum_is_found_by_the_decoder(tmp_path: Path) -> None:
    broken = bytearray(GOOD)
    broken[45] ^= 1
    with pytest.raises(BadImage):
        decoded(undecoded(bytes(broken), 10_000), 10_000)
