"""Images as clients send them: read as training reads them, or refused with what is wrong."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from codedance_verl import images
from codedance_verl.serving.errors import RequestError
from codedance_verl.serving.request_images import Bounds
from codedance_verl.serving.requests import ChatRequest, read_request

CASES = Path(__file__).parents[2] / "data" / "cases"
BOUNDS = Bounds(max_images=4, max_image_pixels=1_000_000, max_request_pixels=2_000_000)
IDS = [case["id"] for case in json.loads((CASES / "serving" / "index.json").read_text(encoding="utf-8"))["cases"]]


def file_of(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


NOISE = Image.fromarray(numpy.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=numpy.uint8))
DATA = file_of(NOISE)
PLAIN = base64.b64encode(DATA).decode()


def ask(*urls: Any) -> ChatRequest:
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    body = {"messages": [{"role": "user", "content": [*parts, {"type": "text", "text": "How many?"}]}]}
    return read_request(json.dumps(body).encode(), (), BOUNDS)


def shown(asked: ChatRequest) -> list[Image.Image]:
    return [part["image"] for part in asked.messages[-1]["content"] if part["type"] == "image"]


def url_of(data: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def _transparent() -> None:
    table = pyarrow.parquet.read_table(CASES / "data_loading" / "files" / "img_rgba.parquet").to_pylist()
    data = table[0]["images"][0]["bytes"]
    asked = ask(url_of(data))
    assert shown(asked)[0].convert("L").getextrema() != (0, 0)
    assert images.pixels_sha256(shown(asked)[0]) == images.pixels_sha256(images.decode(data))
    assert asked.images == (data,)


def _wrapped() -> None:
    lines = base64.encodebytes(DATA).decode()
    for text in (lines, lines.replace("\n", "\r\n"), f" {PLAIN} \n", "\t".join(PLAIN)):
        assert ask(f"data:image/png;base64,{text}").images == (DATA,)


def _heads() -> None:
    for head in (
        "data:image/png;charset=utf-8;base64,",
        "DATA:image/PNG;base64,",
        "data:image/png;name=a.png;BASE64,",
        " data:image/png; base64,",
        "data:;base64,",
        "data:application/octet-stream;base64,",
    ):
        assert ask(head + PLAIN).images == (DATA,)


BY_ID: dict[str, Callable[[], None]] = {"serving-01": _transparent, "serving-03": _wrapped, "serving-04": _heads}


@pytest.mark.parametrize("name", IDS)
def test_the_request_is_read_as_expected(name: str) -> None:
    BY_ID[name]()


@given(data=st.binary(min_size=1, max_size=60), pads=st.booleans(), escaped=st.booleans())
def test_base64_of_any_alphabet_is_the_same_file(data: bytes, pads: bool, escaped: bool) -> None:
    whole = DATA + data  # decoders ignore what follows an image
    text = base64.urlsafe_b64encode(whole).decode()
    text = text if pads else text.rstrip("=")
    text = quote(text, safe="") if escaped else text
    assert ask(f"data:image/png;base64,{text}").images == (whole,)


@pytest.mark.parametrize("cut", [PLAIN + "*", PLAIN[:-2] + "é", PLAIN.rstrip("=")[: len(PLAIN) // 4 * 4 - 3], "="])
def test_broken_base64_is_said_to_be(cut: str) -> None:
    with pytest.raises(RequestError, match=r"base64 of the image is broken|it is empty") as refused:
        ask(f"data:image/png;base64,{cut}")
    assert refused.value.code == "invalid_image"


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (file_of(NOISE, "ICO"), "it is ICO"),
        (file_of(NOISE, "TIFF"), "it is TIFF"),
        (b"\x00\x00\x00\x20ftypheic" + bytes(40), "it is HEIF"),
        (b"\x00\x00\x00\x20ftypavif" + bytes(40), "it is AVIF"),
        (b"\x00\x00\x00\x20ftypisom" + bytes(40), "it is a video"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "it is SVG"),
        (b"%PDF-1.7", "it is PDF"),
        (b"<!DOCTYPE html><p>404</p>", "it is HTML"),
        (PLAIN.encode(), "it is no image"),
        (b"", "it is empty"),
        (DATA[:-40], "OSError: image file is truncated|SyntaxError|ValueError"),
    ],
)
def test_what_cannot_be_decoded_is_named(data: bytes, told: str) -> None:
    with pytest.raises(RequestError, match=rf"cannot be decoded \((?:{told}).*; PNG, JPEG, WEBP, GIF, BMP are"):
        ask(url_of(data))


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org/a.png",
        "file:///etc/passwd",
        "data:image/png,%89PNG",
        "data:image/svg+xml;utf8,<svg/>",
        "data:" + ";" * 100_000,
        PLAIN,
        None,
        7,
        {},
    ],
)
def test_no_other_url_is_opened(url: Any) -> None:
    with pytest.raises(RequestError, match="no other URL is opened"):
        ask(url)


def _turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return file_of(NOISE, "JPEG", exif=exif)


FILES = {
    "rgba": file_of(Image.new("RGBA", (20, 10), (10, 20, 30, 0))),
    "la": file_of(Image.new("LA", (20, 10), (10, 0))),
    "palette": file_of(Image.new("RGBA", (20, 10), (10, 20, 30, 0)).quantize()),
    "16 bit": file_of(Image.fromarray(numpy.linspace(0, 65535, 200).reshape(10, 20).astype(numpy.uint16))),
    "turned": _turned(),
    "several frames": file_of(NOISE, "GIF", save_all=True, append_images=[NOISE.rotate(90)]),
    "mpo": file_of(NOISE, "MPO", save_all=True, append_images=[NOISE.rotate(90)]),
    "bmp": file_of(NOISE, "BMP"),
    "cmyk": file_of(NOISE.convert("CMYK"), "JPEG"),
}


@pytest.mark.parametrize("kind", FILES)
def test_an_image_is_decoded_as_in_training(kind: str) -> None:
    asked = ask(url_of(FILES[kind]))
    (image,) = shown(asked)
    assert image.mode == "RGB"
    assert images.pixels_sha256(image) == images.pixels_sha256(images.decode(FILES[kind]))
    assert asked.images == (FILES[kind],)


def test_all_images_of_the_last_message_with_any_go_to_code() -> None:
    files = [file_of(Image.new("RGB", (20 + index, 20), "teal")) for index in range(4)]

    def said(*data: bytes) -> dict[str, Any]:
        return {
            "role": "user",
            "content": [{"type": "image_url", "image_url": {"url": url_of(item)}} for item in data]
            + [{"type": "text", "text": "so?"}],
        }

    answered = {"role": "assistant", "content": "3"}
    for messages, expected in (
        ([said(files[0]), answered, said(*files[1:])], files[1:]),
        ([said(*files[:2]), answered, {"role": "user", "content": "and now?"}], files[:2]),
    ):
        asked = read_request(json.dumps({"messages": messages}).encode(), (), BOUNDS)
        assert asked.images == tuple(expected)
