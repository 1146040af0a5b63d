"""Rates per 1,000 rollouts with their 95 % intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass

_Z_95 = 1.959963984540054
"""Two-sided 95 % quantile of the normal distribution."""


@dataclass(frozen=True)
class Rate:
    """Rollouts with something, of all, per 1,000: `count` of `rollouts`, Wilson's interval from `low` to `high`.

    The interval takes rollouts as independent. Those of one question are more alike than that.
    """

    count: int
    rollouts: int
    per_1000: float
    low: float
    high: float


def rate(count: int, rollouts: int) -> Rate:
    """Rate with Wilson's score interval (E. B. Wilson, JASA 22, 1927). Raises ValueError for no rollouts."""
    if not 0 <= count <= rollouts or rollouts == 0:
        raise ValueError(f"{count} of {rollouts} rollouts is no rate")
    share, square = count / rollouts, _Z_95 * _Z_95
    centre = share + square / (2 * rollouts)
    spread = _Z_95 * math.sqrt(share * (1 - share) / rollouts + square / (4 * rollouts * rollouts))
    scale = 1 + square / rollouts
    low = 0.0 if count == 0 else max(0.0, (centre - spread) / scale)
    high = 1.0 if count == rollouts else min(1.0, (centre + spread) / scale)
    return Rate(count, rollouts, 1000 * share, 1000 * low, 1000 * high)
