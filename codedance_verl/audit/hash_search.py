"""Exhaustive search for near hashes: every pair is compared, so that nothing is lost to an index.

A training image against one hash costs about 3 ns of one core.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

CROPPED_BITS = 10
"""Bits of 64 in which the luma of a candidate differs from the nearest view, at most."""

RECOLOURED_BITS = 4
"""Bits of 64 in which the lightness of a candidate differs, at most. Whole images only: few are enough."""

_BLOCK = 1 << 16  # hashes compared at a time: their distances stay in the cache of a core


def near_pairs(views: NDArray[np.uint64], hashes: NDArray[np.uint64]) -> Iterator[tuple[int, NDArray[np.intp]]]:
    """Candidates of each evaluation image that has any.

    Args:
        views: hashes of the evaluation images (`thumbnails.view_hashes`), shape (evaluation images, 8).
        hashes: hashes of the training images (`thumbnails.hashes_of`), shape (training images, 2).

    Yields:
        Index of the evaluation image, and indices of the training images that are near it, in order.
    """
    luma, lightness = (np.ascontiguousarray(plane) for plane in hashes.T)
    for number, (*of_luma, of_lightness) in enumerate(views):
        found = []
        for start in range(0, len(hashes), _BLOCK):
            block = luma[start : start + _BLOCK]
            near = np.bitwise_count(lightness[start : start + _BLOCK] ^ of_lightness) <= RECOLOURED_BITS
            for view in of_luma:
                near |= np.bitwise_count(block ^ view) <= CROPPED_BITS
            found.append(start + np.flatnonzero(near))
        if any(map(len, found)):
            yield number, np.concatenate(found)
