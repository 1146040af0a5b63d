"""Images of a request: `data:` URLs as clients write them, decoded by the rule that training decodes by."""

from __future__ import annotations

import base64
import binascii
import io
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

from PIL import Image, UnidentifiedImageError

from codedance_verl import images
from codedance_verl.serving.errors import RequestError

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
"""Of images, by the names that Pillow has for them."""

_HEAD_CHARS = 200
_HEAD = re.compile(r"\s*data:[^,;]*(?:;[^,;]*)*?;\s*base64\s*,", re.IGNORECASE)
_SPACE = b" \t\r\n\f\v"
_URLSAFE = bytes.maketrans(b"-_", b"+/")
_OTHERS: tuple[tuple[re.Pattern[bytes], str], ...] = (
    (re.compile(rb"\x00\x00[\x01\x02]\x00"), "ICO"),
    (re.compile(rb"II\*\x00|MM\x00\*"), "TIFF"),
    (re.compile(rb".{4}ftypavi[fs]", re.DOTALL), "AVIF"),
    (re.compile(rb".{4}ftyp(?:hei|hev|mif|msf)", re.DOTALL), "HEIF"),
    (re.compile(rb".{4}ftyp", re.DOTALL), "a video"),
    (re.compile(rb"\x1aE\xdf\xa3"), "a video"),
    (re.compile(rb"\x00\x00\x00\x0cjP|\xff\x4f\xff\x51"), "JPEG 2000"),
    (re.compile(rb"8BPS"), "PSD"),
    (re.compile(rb"%PDF"), "PDF"),
    (re.compile(rb"PK\x03\x04"), "a ZIP archive"),
    (re.compile(rb"\s*(?:<\?xml.{,2000})?\s*<svg", re.DOTALL), "SVG"),
    (re.compile(rb"\s*<(?:!doctype|html)", re.IGNORECASE), "HTML"),
    (re.compile(rb"data:", re.IGNORECASE), "a data: URL once more"),
)
"""What files that are none of `FORMATS` begin with."""


@dataclass(frozen=True)
class Bounds:
    """Bounds of what a request may hold: images, pixels of each, and pixels of all together."""

    max_images: int
    max_image_pixels: int
    max_request_pixels: int


def read_image(url: Any, bounds: Bounds, param: str, before: int = 0) -> tuple[bytes, Image.Image]:
    """File and image (RGB, upright, on white) of a `data:` URL; `before`: pixels of the request's images before it.

    Raises:
        RequestError: it is another URL, no image, broken, or too large by itself or together with those before it.
    """
    head = _HEAD.match(url[:_HEAD_CHARS]) if isinstance(url, str) else None
    if head is None:
        raise RequestError(
            "images must come with the request, as data:image/...;base64,...; no other URL is opened",
            param=param,
            code="invalid_image_url",
        )
    data = _bytes(url[head.end() :], param)
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
            _check_size(opened, bounds, param, before)
        return data, images.decode(data, FORMATS)
    except RequestError:
        raise
    except UnidentifiedImageError:
        reason = _kind(data)
    except Exception as error:  # Pillow's decoders raise almost anything for broken files
        reason = f"{type(error).__name__}: {error}"[:150]
    message = f"the image cannot be decoded ({reason}); {', '.join(FORMATS)} are understood"
    raise RequestError(message, param=param, code="invalid_image")


def _bytes(payload: str, param: str) -> bytes:
    """What base64 says, wrapped in lines, with the alphabet of URLs, percent signs or without padding too."""
    try:
        text = payload.encode("ascii")
        text = unquote_to_bytes(text) if b"%" in text else text
        text = text.translate(_URLSAFE, _SPACE).rstrip(b"=")
        return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except (UnicodeEncodeError, binascii.Error):
        raise RequestError(
            "the base64 of the image is broken: it has other characters than A-Z, a-z, 0-9, +, /, or is cut",
            param=param,
            code="invalid_image",
        ) from None


def _kind(data: bytes) -> str:
    """What a file is that is no image of ours, in a few words."""
    if not data:
        return "it is empty"
    known = next((name for pattern, name in _OTHERS if pattern.match(data)), None)
    return "it is no image" if known is None else f"it is {known}"


def _check_size(picture: Image.Image, bounds: Bounds, param: str, before: int) -> None:
    """Raise `RequestError` for an image, not decoded yet, that would take too much memory."""
    pixels = picture.width * picture.height
    if pixels > bounds.max_image_pixels:
        raise RequestError(
            f"the image has {picture.width} x {picture.height} pixels, at most {bounds.max_image_pixels} "
            "are allowed (serving.max_image_pixels)",
            param=param,
            code="image_too_large",
        )
    if before + pixels > bounds.max_request_pixels:
        raise RequestError(
            f"the images of the request have more than {bounds.max_request_pixels} pixels together "
            "(serving.max_request_pixels)",
            param=param,
            code="image_too_large",
        )
