"""Pixel check of a candidate pair: whether one image is a copy of the other, maybe cropped.

One image is laid over the other at several scales and offsets, the best place is refined by an affine fit, and the two
are compared block by block. Blocks decide, as charts of one template agree in frame, axes and most of the white, so
that a correlation over the whole image is .9 and more for charts of different data.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import cv2
import numpy as np
from numpy.typing import NDArray

from codedance_verl.audit.thumbnails import SIDE, Plane, Thumbnail

COPY_SCORE = 0.7
"""Score from which a pair counts as copies; `benchmarks/audit.py` measures how far pairs are from it."""

_COARSE = 64  # pixels of a side at which the place is looked for
_SCALES = (1.0, 0.95, 0.9)  # of each side: what a crop has left of it
_LEAST_COARSE = 0.4  # correlation below which no place is refined
_FINE = 128  # pixels of a side at which the place is refined
_STEPS = 30
_SMOOTH = 3  # pixels of the filter before the fit
_BLOCK = 16  # pixels of a side of the blocks that are compared, at full size
_CONTRASTS = (6.0, 2.0)  # grey levels of deviation of a block that counts; the second where few reach the first
_LEAST_BLOCKS = 12
_WORST = 0.05  # share of the blocks that may be different: a mark, a cursor; bars of other heights are in more
_PLAIN = 0.5  # grey levels of deviation of a block without anything in it
_TONED_BLUR = 1.2  # pixels
_FILLED = 255
_LEAST_SHARE = 0.6  # of the area that both show; a fit to an image that is no copy may end anywhere
_BLURS = (0.0, 1.2, 2.4)  # pixels, of both: a copy of a third of the size has lost its fine lines


@dataclass(frozen=True)
class Place:
    """Place of one image within another: scale and offset of each axis as shares of the sides, and correlation."""

    correlation: float
    scale: tuple[float, float] = (1.0, 1.0)
    offset: tuple[float, float] = (0.0, 0.0)


def copy_score(first: Thumbnail, second: Thumbnail) -> float:
    """Agreement of two images in the plane where they agree best, 0 to 1, with either as a crop of the other.

    Both have shape (2, SIDE, SIDE). `COPY_SCORE` and more are copies; the other plane is left out then.
    """
    best = 0.0
    for planes in zip(first, second, strict=True):
        best = max(best, _plane_score(*planes))
        if best >= COPY_SCORE:
            break
    return best


def _plane_score(first: Plane, second: Plane) -> float:
    places = [(_coarse_place(whole, part), whole, part) for whole, part in ((first, second), (second, first))]
    place, whole, part = max(places, key=lambda found: found[0].correlation)
    if place.correlation < _LEAST_COARSE:
        return 0.0
    laid, filled = _laid_over(part, _refined(whole, part, place))
    if (filled == _FILLED).mean() < _LEAST_SHARE:
        return 0.0
    best = 0.0
    for one, other in _versions(whole, laid, filled):
        best = max(best, _agreement(one, other, _blocks(filled).min(axis=1) == _FILLED))
        if best >= COPY_SCORE:
            break
    return best


def _versions(whole: Plane, laid: Plane, filled: Plane) -> Iterator[tuple[Plane, Plane]]:
    """The two planes at several sharpnesses, then each with the tones of the other."""
    for blur in _BLURS:
        yield _blurred(whole, blur), _blurred(laid, blur)
    one, other = _blurred(whole, _TONED_BLUR), _blurred(laid, _TONED_BLUR)
    yield _toned(one, other, filled), other
    yield one, _toned(other, one, filled)


def _toned(plane: Plane, like: Plane, filled: Plane) -> Plane:
    """Plane whose levels are each replaced by the mean that the other plane has at their pixels.

    Of a copy made brighter, what turned white is so white in both. In another image a level stands for many.
    """
    inside = filled == _FILLED
    pixels = np.bincount(plane[inside], minlength=256)
    sums = np.bincount(plane[inside], weights=like[inside], minlength=256)
    levels = np.flatnonzero(pixels)
    means = np.interp(np.arange(256), levels, sums[levels] / pixels[levels]) if len(levels) else np.arange(256)
    return np.asarray(means.round().astype(np.uint8)[plane])


def _coarse_place(whole: Plane, part: Plane) -> Place:
    """Best place of `part` within `whole`, by normalised correlation of small versions."""
    small = cv2.resize(whole, (_COARSE, _COARSE), interpolation=cv2.INTER_AREA)
    best = Place(0.0)
    for across, down in product(_SCALES, _SCALES):
        size = (round(across * _COARSE), round(down * _COARSE))
        found = cv2.matchTemplate(small, cv2.resize(part, size, interpolation=cv2.INTER_AREA), cv2.TM_CCOEFF_NORMED)
        _, correlation, _, (left, top) = cv2.minMaxLoc(np.nan_to_num(found, posinf=0.0, neginf=0.0))
        if correlation > best.correlation:
            scale = (size[0] / _COARSE, size[1] / _COARSE)
            best = Place(correlation, scale, (left / _COARSE, top / _COARSE))
    return best


def _refined(whole: Plane, part: Plane, place: Place) -> NDArray[np.float32]:
    """Affine map (2, 3) from pixels of `whole` to those of `part`; the coarse one where no fit is found."""
    ratio = SIDE / _FINE
    (across, down), (left, top) = place.scale, place.offset
    start = np.array([[1 / across, 0, -left * _FINE / across], [0, 1 / down, -top * _FINE / down]], np.float32)
    images = [cv2.resize(image, (_FINE, _FINE), interpolation=cv2.INTER_AREA) for image in (whole, part)]
    ends = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, _STEPS, 1e-4)
    mask = np.full((_FINE, _FINE), 255, np.uint8)
    try:
        _, found = cv2.findTransformECC(images[0], images[1], start.copy(), cv2.MOTION_AFFINE, ends, mask, _SMOOTH)
        fitted = np.asarray(found, np.float32)
    except cv2.error:  # it does not converge: then the pair is no copy, or the coarse place has to do
        fitted = start
    return fitted * np.array([[1, 1, ratio], [1, 1, ratio]], np.float32)


def _laid_over(part: Plane, fitted: NDArray[np.float32]) -> tuple[Plane, Plane]:
    """`part` where the map puts it, and a plane that is `_FILLED` where it reaches."""
    flags, size = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, (SIDE, SIDE)
    laid = cv2.warpAffine(part, fitted, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    filled = cv2.warpAffine(np.full_like(part, _FILLED), fitted, size, flags=flags)
    return laid.astype(np.uint8), filled.astype(np.uint8)


def _blurred(plane: Plane, deviation: float) -> Plane:
    return cv2.GaussianBlur(plane, (0, 0), deviation).astype(np.uint8) if deviation else plane


def _agreement(whole: Plane, laid: Plane, shown: NDArray[np.bool_]) -> float:
    """Correlation that all but the worst blocks reach, of those that both images show and that are not plain."""
    first, second = (_centred(_blocks(plane)[shown]) for plane in (whole, laid))
    deviations = np.stack([first.std(axis=1), second.std(axis=1)])
    strongest = deviations.max(axis=0)
    textured = next((found for least in _CONTRASTS if (found := strongest >= least).sum() >= _LEAST_BLOCKS), None)
    if textured is None:
        return 0.0
    correlation = (first * second).mean(axis=1) / np.maximum(deviations.prod(axis=0), 1e-6)
    # a block that is plain in one image only has nothing to correlate with
    correlation[deviations.min(axis=0) < _PLAIN] = 0.0
    # the sign is of no account, as recolouring may turn light and dark around
    return float(np.quantile(np.abs(correlation[textured]), _WORST))


def _centred(blocks: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(blocks - blocks.mean(axis=1, keepdims=True), np.float32)


def _blocks(image: Plane) -> NDArray[np.float32]:
    """Blocks of an image as rows, shape (blocks, pixels of a block)."""
    count = SIDE // _BLOCK
    tiles = image.reshape(count, _BLOCK, count, _BLOCK).swapaxes(1, 2)
    return tiles.reshape(count * count, _BLOCK * _BLOCK).astype(np.float32)
