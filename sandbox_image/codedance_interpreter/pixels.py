"""Conversion of any image to the 8-bit RGB pixels that the model and its code both see.

The interpreter applies it to the images of the question and to what cells display; the host applies the same function
to what the model sees (`codedance_verl.images`), so that a crop by code is a crop of what the model saw.
"""

from __future__ import annotations

from typing import Any

_ORIENTATION = 0x0112
_DEEP_MODES = ("I", "F")
_WITH_ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")
_METADATA = ("exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp")
"""Keys of `Image.info` that Pillow looks for an orientation in."""

_TURNS = ("FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM", "TRANSPOSE", "ROTATE_270", "TRANSVERSE", "ROTATE_90")
"""Names of `Image.Transpose` for the orientations 2 to 8."""


def as_rgb(image: Any) -> Any:
    """Converts a PIL image to RGB: upright by its EXIF orientation, on white where transparent, deep pixels in 8 bits.

    Returns `image` itself where nothing is to be done. 16-bit and float pixels are stretched over 0..255 where they do
    not fit there; floats from 0 to 1 are taken as fractions of white.
    """
    from PIL import Image

    image = _upright(image)
    # "I;16" has variants by byte order; all of these have more than 8 bits a channel.
    if image.mode in _DEEP_MODES or image.mode.startswith("I;"):
        return _scaled(image).convert("RGB")
    if image.mode in _WITH_ALPHA or "transparency" in image.info:
        rgba = image.convert({"RGBa": "RGBA", "La": "LA"}.get(image.mode, image.mode)).convert("RGBA")
        ground = Image.new("RGB", rgba.size, "white")
        ground.paste(rgba, mask=rgba.getchannel("A"))
        return ground
    return image if image.mode == "RGB" else image.convert("RGB")


def orientation(image: Any) -> int:
    """Returns the EXIF orientation, 1 (upright) to 8; 1 where there is none or its data are broken."""
    if image.format == "PNG" and not image.info.keys() & set(_METADATA):
        return 1  # Pillow would decode the whole image to find none
    try:
        found = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # broken metadata raises anything; the pixels are what counts
        return 1
    return found if found in range(2, 9) else 1


def _upright(image: Any) -> Any:
    """Turns an image by its orientation, which is then gone from its metadata: turning it again changes nothing.

    `ImageOps.exif_transpose` would also rewrite the metadata, which fails in many ways where they are broken.
    """
    from PIL import Image

    image.load()  # a TIFF is turned by this, and a PNG may have its metadata behind its pixels
    if (found := orientation(image)) == 1:
        return image
    turned = image.transpose(Image.Transpose[_TURNS[found - 2]])
    for key in _METADATA:
        turned.info.pop(key, None)
    return turned


def _scaled(image: Any) -> Any:
    """Maps an image of more than 8 bits a pixel onto 0..255 when it does not fit there."""
    import numpy
    from PIL import Image

    values = numpy.nan_to_num(numpy.array(image, dtype=numpy.float64), copy=False)  # in place: 8 bytes a pixel are many
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 255:
        values -= low
        values *= 255 / ((high - low) or 1)
    elif image.mode == "F" and high <= 1:
        values *= 255
    return Image.fromarray(values.astype(numpy.uint8))
