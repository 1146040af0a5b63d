"""Share with its 95 % interval, as `report.json` holds it."""

from __future__ import annotations

import msgspec

from codedance_verl.statistics.clusters import Rate
from codedance_verl.statistics.intervals import Interval


class Estimate(msgspec.Struct, frozen=True):
    """Share in [0, 1], or a difference of shares in [-1, 1].

    Attributes:
        value: None where nothing was measured.
        low, high: ends of the 95 % interval; None where there are fewer than two clusters.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, value: float | None, interval: Interval | None) -> Estimate:
        return cls(value) if interval is None else cls(value, interval.low, interval.high)

    @classmethod
    def of_rate(cls, rate: Rate | None) -> Estimate:
        """Rate over clusters; empty for None."""
        return cls() if rate is None else cls.of(rate.value, rate.interval)

    @property
    def in_words(self) -> str:
        """Percent with its interval, such as `84.8 % (79.1 to 89.2)`; `n/a` where nothing was measured."""
        if self.value is None:
            return "n/a"
        ends = "" if self.low is None or self.high is None else f" ({100 * self.low:.1f} to {100 * self.high:.1f})"
        return f"{100 * self.value:.1f} %{ends}"
