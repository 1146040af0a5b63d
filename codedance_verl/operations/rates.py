"""Rates per 1,000 rollouts with their 95 % intervals."""

from __future__ import annotations

from dataclasses import dataclass

from codedance_verl.statistics.intervals import wilson


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
    """Rate with Wilson's score interval. Raises ValueError for no rollouts."""
    if not 0 <= count <= rollouts or rollouts == 0:
        raise ValueError(f"{count} of {rollouts} rollouts is no rate")
    low, high = wilson(count, rollouts)
    return Rate(count, rollouts, 1000 * count / rollouts, 1000 * low, 1000 * high)
