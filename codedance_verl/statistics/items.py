"""Items of a benchmark as they were measured, and figures that are made of the items of each cluster."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from codedance_verl.statistics.clusters import ClusterSums


@dataclass(frozen=True)
class Item:
    """One item of a benchmark.

    Attributes:
        key: name of the item, the same for every model.
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


ClusterFigure = Callable[[Mapping[str, float]], tuple[float, float]]
"""Numerator and denominator that a cluster adds, from the values of its items by key."""


def mean_of_items(values: Mapping[str, float]) -> tuple[float, float]:
    """Every item counts alike: accuracy over rows."""
    return sum(values.values()), float(len(values))


def all_right(values: Mapping[str, float]) -> tuple[float, float]:
    """A cluster counts once, and is right where all of its items are: HR-Bench in all four orders."""
    return float(all(value == 1 for value in values.values())), 1.0


def counted_wrong(_: Item) -> float:
    """Worth of an item that was not measured, as the headline has it."""
    return 0.0


def by_cluster(items: Iterable[Item]) -> dict[str, tuple[Item, ...]]:
    """Items of each cluster; clusters by name, items by key, so that the order of `items` does not matter.

    Raises:
        ValueError: a key comes twice.
    """
    ordered = sorted(items, key=lambda item: (item.cluster, item.key))
    twice = [key for key, times in Counter(item.key for item in ordered).items() if times > 1]
    if twice:
        raise ValueError(f"item {twice[0]} comes twice")
    found: dict[str, list[Item]] = {}
    for item in ordered:
        found.setdefault(item.cluster, []).append(item)
    return {name: tuple(members) for name, members in found.items()}


def cluster_sums(
    clusters: Mapping[str, Iterable[Item]], figure: ClusterFigure, worth: Callable[[Item], float] = counted_wrong
) -> ClusterSums:
    """Sums of a figure, cluster by cluster; `worth` is the value of an item that was not measured."""
    pairs = [
        figure({item.key: worth(item) if item.value is None else item.value for item in members})
        for members in clusters.values()
    ]
    return ClusterSums(*np.array(pairs, dtype=np.float64).reshape(-1, 2).T)
