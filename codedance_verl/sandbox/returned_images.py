"""Check of the images that an interpreter, which is not trusted, sends back.

A node that passes them on to the client's process looks at their structure alone: it serves many sessions, and the
client decodes them anyway. What decodes one is Pillow, its PNG reader only, and only after the structure was checked.
"""

from __future__ import annotations

import hashlib
import io
import struct
from dataclasses import replace

from PIL import Image

from codedance_verl.types import Execution, RenderedImage

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER = struct.Struct(">IIBBBBB")  # width, height, bit depth, colour type, compression, filter, interlace
_RGB_8_BITS = (8, 2, 0, 0, 0)
_MOST_CHUNKS = 256
"""Chunks of an image; the interpreter sends one for each mebibyte of pixels."""


class BadImage(Exception):
    """A session has sent something else than an interpreter's image."""


def undecoded(png: object, max_pixels: int) -> RenderedImage:
    """Returns an image whose structure has been checked, without a hash.

    It is an RGB PNG of 8 bits with `max_pixels` at most, of IHDR, IDAT and IEND alone: no metadata, no transparency,
    no animation, nothing behind its end.

    Raises:
        BadImage: it is none.
    """
    if not isinstance(png, bytes) or not png.startswith(_SIGNATURE):
        raise BadImage("no PNG")
    kinds, at, header = [], len(_SIGNATURE), b""
    while at < len(png):
        length, kind = int.from_bytes(png[at : at + 4], "big"), png[at + 4 : at + 8]
        header = header or png[at + 8 : at + 8 + length]
        if kind == b"IEND" and length:
            raise BadImage("chunks")
        kinds.append(kind)
        at += 12 + length
        if len(kinds) > _MOST_CHUNKS:
            raise BadImage("chunks")
    if at != len(png) or len(kinds) < 3 or (kinds[0], kinds[-1]) != (b"IHDR", b"IEND") or set(kinds[1:-1]) != {b"IDAT"}:
        raise BadImage("chunks")
    if len(header) != _HEADER.size:
        raise BadImage("header")
    width, height, *form = _HEADER.unpack(header)
    if tuple(form) != _RGB_8_BITS or not 0 < width * height <= max_pixels:
        raise BadImage("form or size")
    return RenderedImage("", width, height, png)


def decoded(image: RenderedImage, max_pixels: int) -> RenderedImage:
    """Decodes an image in full, so that readers can rely on it; hash and size are computed, not believed.

    Raises:
        BadImage: it cannot be decoded, or is none of `undecoded`.
    """
    size = undecoded(image.png, max_pixels)
    try:
        with Image.open(io.BytesIO(image.png), formats=("PNG",)) as opened:
            opened.load()
            if (opened.mode, opened.size) != ("RGB", (size.width, size.height)) or opened.info:
                raise BadImage("kind")
    except BadImage:
        raise
    except Exception as error:  # PIL raises many types on a broken file
        raise BadImage(type(error).__name__) from None
    return replace(size, sha256=hashlib.sha256(image.png).hexdigest())


def with_decoded_images(execution: Execution, max_pixels: int) -> Execution:
    """Returns an execution all whose images are `decoded`; raises `BadImage`."""
    return replace(execution, images=tuple(decoded(image, max_pixels) for image in execution.images))
