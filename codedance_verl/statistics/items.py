"""Items of a benchmark as they were measured, and figures that are made of the items of each cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from codedance_verl.statistics.clusters import ClusterSums, sums_by_cluster


@dataclass(frozen=True)
class Item:
    """One item of a benchmark.

    Attributes:
        key: name of the item and of what it asks, the same for every model. Two models are compared on items of one
            key, so that it must tell apart a row number that is another question in another file (`tasks.Item.key`).
        cluster: name of what it shares its question with; the key itself where it stands alone.
        value: 0 for a wrong answer to 1 for a right one, the mean of several samples; None where it was not measured.
        fault: why it was not measured, such as "unreadable image"; empty where it was.

    Raises:
        ValueError: a value outside [0, 1]; neither a value nor a fault, or both.
    """

    key: str
    cluster: str
    value: float | None
    fault: str = ""

    def __post_init__(self) -> None:
        if (self.value is None) != bool(self.fault):
            raise ValueError(f"item {self.key}: it needs a value or a fault, and not both")
        if self.value is not None and not 0 <= self.value <= 1:
            raise ValueError(f"item {self.key}: value {self.value} is outside 0 to 1")


class Valued(NamedTuple):
    """An item with a value that it was given."""

    key: str
    cluster: str
    value: float


Figure = Callable[[Sequence[Valued]], ClusterSums]
"""Figure of a benchmark: what its clusters add to numerator and denominator, from items in any order.

It must give the clusters of two models in the same order where the items are the same, as `sums_by_cluster` does.
"""


def mean_of_items(items: Sequence[Valued]) -> ClusterSums:
    """Every item counts alike: accuracy over rows."""
    return sums_by_cluster([item.value for item in items], [1.0] * len(items), [item.cluster for item in items])


def of_clusters(score: Callable[[Mapping[str, float]], tuple[float, float]]) -> Figure:
    """Figure from what each cluster adds to numerator and denominator, given the values of its items by key."""

    def figure(items: Sequence[Valued]) -> ClusterSums:
        clusters: dict[str, dict[str, float]] = {}
        for item in sorted(items):
            clusters.setdefault(item.cluster, {})[item.key] = item.value
        scores = [score(values) for values in clusters.values()]
        return sums_by_cluster([above for above, _ in scores], [below for _, below in scores], list(clusters))

    return figure


all_right = of_clusters(lambda values: (float(all(value == 1 for value in values.values())), 1.0))
"""A cluster counts once, and is right where all of its items are: HR-Bench in all four orders."""


def counted_wrong(_: Item) -> float:
    """Worth of an item that was not measured, as the headline has it."""
    return 0.0


def valued(items: Iterable[Item], worth: Callable[[Item], float] = counted_wrong) -> list[Valued]:
    """Items by name with their values; `worth` is that of an item that was not measured.

    Raises:
        ValueError: a key comes twice.
    """
    found = sorted(Valued(item.key, item.cluster, worth(item) if item.value is None else item.value) for item in items)
    twice = [item.key for item, following in pairwise(found) if item.key == following.key]
    if twice:
        raise ValueError(f"item {twice[0]} comes twice")
    return found


def unmeasured_clusters(items: Iterable[Item]) -> set[str]:
    """Names of the clusters in which an item was not measured."""
    return {item.cluster for item in items if item.value is None}
