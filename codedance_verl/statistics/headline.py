"""Headline of a benchmark: every item counts, one that was not measured counts wrong, and what that could hide is said.

Bounds that follow from unknown outcomes alone, without an assumption about them, are those of C. F. Manski (Partial
Identification of Probability Distributions, 2003). The interval around both is the union of the intervals at either
end: it holds the rate with all items measured at least as often as it says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from codedance_verl.statistics.clusters import ClusterSums, Rate, cluster_interval, cluster_rate
from codedance_verl.statistics.intervals import Interval
from codedance_verl.statistics.items import Figure, Item, counted_wrong, mean_of_items, unmeasured_clusters, valued


@dataclass(frozen=True)
class Headline:
    """A figure over all items of a benchmark's revision.

    Attributes:
        items: how many the revision has.
        value: with items that were not measured counted wrong: the headline.
        best: had all of these been right.
        bounds: 95 %, from the lower end at `value` to the upper end at `best`; None for fewer than two clusters.
        measured: over the clusters in which every item was measured, for comparison; None where there is none.
        faults: items that were not measured, by why.
        could_add: what these could add to `value`, by why.
        design_effect: variance of the headline by that of as many independent items.
    """

    items: int
    value: Rate
    best: float
    bounds: Interval | None
    measured: Rate | None
    faults: Mapping[str, int]
    could_add: Mapping[str, float]
    design_effect: float

    @property
    def not_measured(self) -> int:
        """Items that were not measured, for whatever reason."""
        return sum(self.faults.values())

    @property
    def sentence(self) -> str:
        """The headline in words, in percent."""
        text = f"{100 * self.value.value:.1f} %{_ends(self.value.interval)} of {_count(self.items, 'item')}"
        if self.value.clusters < self.items:
            text += f" in {_count(self.value.clusters, 'cluster')}"
        if not self.not_measured:
            return f"{text}; all were measured."
        why = ", ".join(f"{number} {fault}" for fault, number in self.faults.items())
        return (
            f"{text}; {self.not_measured} were not measured and count as wrong ({why}). "
            f"Had they all been right: {100 * self.best:.1f} %; both with their uncertainty{_ends(self.bounds)}."
        )


def headline(items: Sequence[Item], figure: Figure = mean_of_items) -> Headline:
    """The headline of all items.

    A figure must not fall where an item is right instead of wrong, or its bounds do not hold: means, all right and
    WeMath's scores are so, a rate of rote memorisation is not.

    Raises:
        ValueError: there is no item, or one comes twice; or the figure counts none of them.
    """

    def sums(worth: Callable[[Item], float]) -> ClusterSums:
        return figure(valued(items, worth))

    if not items:
        raise ValueError("no item")
    faults = Counter(item.fault for item in items if item.value is None)
    worst, best = sums(counted_wrong), sums(lambda _: 1.0)
    broken = unmeasured_clusters(items)
    whole = [item for item in items if item.cluster not in broken]
    value = cluster_rate(worst)
    if value is None:
        raise ValueError("the figure counts none of the items")
    low, high = cluster_interval(worst), cluster_interval(best)
    return Headline(
        items=len(items),
        value=value,
        best=best.rate,
        bounds=Interval(low.low, high.high) if low and high else None,
        measured=cluster_rate(figure(valued(whole))) if whole else None,
        faults=dict(sorted(faults.items())),
        could_add={fault: sums(partial(_right_if, fault)).rate - worst.rate for fault in sorted(faults)},
        design_effect=worst.design_effect,
    )


def _right_if(fault: str, item: Item) -> float:
    return float(item.fault == fault)


def _ends(interval: Interval | None) -> str:
    return f" ({100 * interval.low:.1f} to {100 * interval.high:.1f})" if interval else ""


def _count(number: int, name: str) -> str:
    return f"{number:,} {name}{'' if number == 1 else 's'}"
