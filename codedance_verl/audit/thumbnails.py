"""Thumbnails, the one form in which images are compared, and the hashes of their views.

A pHash has 64 bits: the signs of low frequencies of a grey image of 32 x 32, against their median (`imagehash.phash`).
It stays close when an image is encoded again, resized or recoloured, and moves when a twentieth of it is cut off. An
evaluation image is therefore hashed in seven views, each as a crop could have left it, and a training image as it is.
"""

from __future__ import annotations

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from codedance_verl import images

Plane = NDArray[np.uint8]
"""Image of one channel, `SIDE` x `SIDE` whatever the shape of the image was: a copy made square has the same one."""

Thumbnail = NDArray[np.uint8]
"""Planes of an image, shape (2, `SIDE`, `SIDE`): its luma, which stays when colours are taken away, and the mean
of its largest and smallest channel (lightness of HSL), which stays when hues are turned or channels swapped."""

SIDE = 256
PLANES = 2

VIEWS: tuple[tuple[float, float, float, float], ...] = (
    (0.0, 0.0, 1.0, 1.0),
    (0.025, 0.025, 0.975, 0.975),  # a twentieth of each side cut off, around the middle and at each corner
    (0.0, 0.0, 0.95, 0.95),
    (0.05, 0.0, 1.0, 0.95),
    (0.0, 0.05, 0.95, 1.0),
    (0.05, 0.05, 1.0, 1.0),
    (0.05, 0.05, 0.95, 0.95),
)
"""Left, top, right and bottom of each view, as shares of the sides; the whole image is the first."""


def thumbnail(data: bytes) -> Thumbnail:
    """Thumbnail of an encoded image. Raises what `images.decode` does."""
    return thumbnail_of(images.decode(data))


def thumbnail_of(image: Image.Image) -> Thumbnail:
    """Thumbnail of a decoded image, of any mode."""
    small = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS, reducing_gap=3.0)
    channels = np.asarray(small)
    lightness = (channels.max(axis=2).astype(np.uint16) + channels.min(axis=2)) // 2
    return np.stack([np.asarray(small.convert("L")), lightness.astype(np.uint8)])


def hashes_of(thumb: Thumbnail) -> NDArray[np.uint64]:
    """pHashes of the whole image, one a plane, shape (2,)."""
    return np.array([_hash(plane) for plane in thumb], np.uint64)


def view_hashes(thumb: Thumbnail) -> NDArray[np.uint64]:
    """pHashes of the views of the luma, then that of the whole lightness, shape (8,)."""
    luma, lightness = thumb
    corners = [tuple(round(share * SIDE) for share in view) for view in VIEWS]
    cut = [luma[top:bottom, left:right] for left, top, right, bottom in corners]
    return np.array([_hash(view) for view in (*cut, lightness)], np.uint64)


def _hash(plane: Plane) -> int:
    bits = imagehash.phash(Image.fromarray(plane)).hash
    return int.from_bytes(np.packbits(bits).tobytes(), "big")
