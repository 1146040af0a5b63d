"""Images of a request: `data:` URLs as clients write them, decoded as training decodes its images."""

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
"""Formats of images, by Pillow's names."""

_HEAD_CHARS = 200
"""Characters that `_HEAD` is matched against: a URL without a comma must not have it scan megabytes."""

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
"""First bytes of files in other formats, with a name for the message."""


@dataclass(frozen=True)
class Bounds:
    """Bounds of what a request may hold: images, pixels of each, and pixels of all together."""

    max_images: int
    max_image_pixels: int
    max_request_pixels: int


def read_image(url: Any, bounds: Bounds, param: str, before: int = 0) -> tuple[bytes, Image.Image]:
    """Decodes the image of a `data:` URL.

    Args:
        url: as the request has it, of any type.
        bounds: of the request.
        param: place of the URL in the request, for messages.
        before: pixels of the request's images before it.

    Returns:
        File and image (RGB, upright, on white).

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
            _check_size(opened, bounds, param, before)  # of the header: nothing is decoded yet
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
    """Decodes base64, also wrapped in lines, in the alphabet of URLs, percent-encoded, or without padding."""
    try:
        text = payload.encode("ascii")
        text = unquote_to_bytes(text) if b"%" in text else text
        text = text.translate(_URLSAFE, _SPACE).rstrip(b"=")
        # -len % 4 restores the padding, whatever part of it was left out
        return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except (UnicodeEncodeError, binascii.Error):
        raise RequestError(
            "the base64 of the image is broken: it has other characters than A-Z, a-z, 0-9, +, /, or is cut",
            param=param,
            code="invalid_image",
        ) from None


def _kind(data: bytes) -> str:
    """Returns the kind of a file in another format, in words."""
    if not data:
        return "it is empty"
    kind = next((name for pattern, name in _OTHERS if pattern.match(data)), None)
    return "it is no image" if kind is None else f"it is {kind}"


def _check_size(image: Image.Image, bounds: Bounds, param: str, before: int) -> None:
    """Raises `RequestError` for an image, not decoded yet, that would take too much memory."""
    pixels = image.width * image.height
    if pixels > bounds.max_image_pixels:
        raise RequestError(
            f"the image has {image.width} x {image.height} pixels, at most {bounds.max_image_pixels} "
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
