"""Crops of the photographs that scikit-image and scikit-learn carry inside their packages; nothing is downloaded."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import skimage
import sklearn
from PIL import Image

from codedance_verl.errors import UserError
from recipes.cpu_demo.tasks.base import Split, choose

_SKIMAGE = Path(skimage.__file__).parent / "data"
_SKLEARN = Path(sklearn.__file__).parent / "datasets" / "images"

_SEEN = (
    _SKIMAGE / "astronaut.png",
    _SKIMAGE / "brick.png",
    _SKIMAGE / "chelsea.png",
    _SKIMAGE / "coins.png",
    _SKIMAGE / "grass.png",
    _SKIMAGE / "hubble_deep_field.jpg",
    _SKIMAGE / "motorcycle_left.png",
    _SKLEARN / "china.jpg",
)
_HELD_OUT = (
    _SKIMAGE / "camera.png",
    _SKIMAGE / "coffee.png",
    _SKIMAGE / "gravel.png",
    _SKIMAGE / "moon.png",
    _SKIMAGE / "rocket.jpg",
    _SKLEARN / "flower.jpg",
)


@cache
def _load(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except OSError as error:
        raise UserError(
            f"the photograph {path} cannot be read ({error}); reinstall scikit-image and scikit-learn"
        ) from error


def photo_crop(rng: np.random.Generator, split: Split, size: int) -> Image.Image:
    """A random region, at a random scale and perhaps mirrored, of a photograph that belongs to the split."""
    photo = _load(choose(rng, _HELD_OUT if split.held_out else _SEEN))
    # at least `size` pixels where the photograph has them: a region is scaled down, not up
    side = int(rng.integers(size, min(photo.size) + 1)) if size < min(photo.size) else min(photo.size)
    left = int(rng.integers(photo.width - side + 1))
    top = int(rng.integers(photo.height - side + 1))
    crop = photo.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.BILINEAR)
    return crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else crop
