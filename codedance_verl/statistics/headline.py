"""Headline of a benchmark: every item counts, one that was not measured counts wrong, and what that could hide is said.

Bounds that follow from unknown outcomes alone, without an assumption about them, are those of C. F. Manski (Partial
Identification of Probability Distributions, 2003). The interval around both is the union of the intervals at either
end: it holds the rate with all items measured at least as often as it says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from codedance_verl.statistics.clusters import Rate, cluster_interval, cluster_rate
from codedance_verl.statistics.intervals import Interval
from codedance_verl.statistics.items import ClusterFigure, Item, by_cluster, cluster_sums, mean_of_items


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


def headline(items: Iterable[Item], figure: ClusterFigure = mean_of_items) -> Headline:
    """The headline of all items.

    A figure must not fall where an item is right instead of wrong, or its bounds do not hold: means, all right and
    WeMath's scores are so, a rate of rote memorisation is not.

    Raises:
        ValueError: there is no item, or one comes twice.
    """
    clusters = by_cluster(items)
    if not clusters:
        raise ValueError("no item")
    everything = [item for members in clusters.values() for item in members]
    faults = Counter(item.fault for item in everything if item.value is None)
    worst, best = cluster_sums(clusters, figure), cluster_sums(clusters, figure, lambda _: 1.0)
    whole = {name: members for name, members in clusters.items() if not any(item.fault for item in members)}
    value = cluster_rate(worst)
    if value is None:
        raise ValueError("the figure is not defined for any cluster")

    def added_by(fault: str) -> float:
        return cluster_sums(clusters, figure, lambda item: float(item.fault == fault)).rate - worst.rate

    low, high = cluster_interval(worst), cluster_interval(best)
    return Headline(
        items=len(everything),
        value=value,
        best=best.rate,
        bounds=Interval(low.low, high.high) if low and high else None,
        measured=cluster_rate(cluster_sums(whole, figure)),
        faults=dict(sorted(faults.items())),
        could_add={fault: added_by(fault) for fault in sorted(faults)},
        design_effect=worst.design_effect,
    )


def _ends(interval: Interval | None) -> str:
    return f" ({100 * interval.low:.1f} to {100 * interval.high:.1f})" if interval else ""


def _count(number: int, name: str) -> str:
    return f"{number:,} {name}{'' if number == 1 else 's'}"
