"""Agreement of two raters beyond chance: Cohen's kappa and its interval."""

from __future__ import annotations

import math
from dataclasses import dataclass

from codedance_verl.statistics.intervals import Z_95, Interval

_ADDED = 0.5
"""Added to each count for the interval: without it, raters that never differ in few items would be certain to agree."""

_NO_CHANCE = 1e-12
"""Distance from 1 of the agreement by chance under which there is no kappa."""


@dataclass(frozen=True)
class Kappa:
    """Kappa (J. Cohen, Educational and Psychological Measurement 20, 1960): 1 full agreement, 0 that of chance.

    The 95 % interval has the variance of J. L. Fleiss, J. Cohen and B. S. Everitt (Psychological Bulletin 72, 1969), of
    counts to which a half is added.
    """

    value: float
    interval: Interval


def kappa(both: float, only_first: float, only_second: float, neither: float) -> Kappa | None:
    """Kappa of independent items by who says yes; None where both say the same one thing of all, or there is none."""
    counts = (both, only_first, only_second, neither)
    value = _estimate(*counts)
    smoothed = [count + _ADDED for count in counts]
    centre = _estimate(*smoothed)
    if value is None or centre is None:
        return None
    half = Z_95 * _standard_error(centre, *smoothed)
    # centred on the smoothed counts, so it may need stretching to hold the value itself
    return Kappa(value, Interval(min(value, max(-1.0, centre - half)), max(value, min(1.0, centre + half))))


def _estimate(both: float, only_first: float, only_second: float, neither: float) -> float | None:
    items = both + only_first + only_second + neither
    if not items:
        return None
    first, second = (both + only_first) / items, (both + only_second) / items
    chance = first * second + (1 - first) * (1 - second)
    return None if 1 - chance < _NO_CHANCE else ((both + neither) / items - chance) / (1 - chance)


def _standard_error(value: float, both: float, only_first: float, only_second: float, neither: float) -> float:
    items = both + only_first + only_second + neither
    yes, a, b, no = (count / items for count in (both, only_first, only_second, neither))
    first, second = yes + a, yes + b
    chance = first * second + (1 - first) * (1 - second)
    # The three sums of the paper's formula (13): agreeing cells, the two others, and what the margins take off.
    agreeing = yes * (1 - (first + second) * (1 - value)) ** 2 + no * (1 - (2 - first - second) * (1 - value)) ** 2
    others = (1 - value) ** 2 * (a * (second + 1 - first) ** 2 + b * (first + 1 - second) ** 2)
    margins = (value - chance * (1 - value)) ** 2
    return math.sqrt(max(0.0, agreeing + others - margins) / items) / (1 - chance)
