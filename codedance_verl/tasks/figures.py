"""Figures of a benchmark: named ratios of sums over its items, with what intervals need.

Every figure is a sum of amounts over a sum of weights, taken over units. A mean of rows, a mean of means, the share of
questions right in all orders, and rates of one class among some are all of that form, so one bootstrap over clusters
serves them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from codedance_verl.tasks.item import Item


@dataclass(frozen=True)
class Mark:
    """Value (0 to 1) of one item under one way of scoring, with the item's strata as sorted pairs.

    Items without a score are given 0, or 1 for the bound above.
    """

    id: str
    cluster: str
    strata: tuple[tuple[str, str], ...]
    value: float

    @classmethod
    def of(cls, item: Item, value: float) -> Mark:
        return cls(item.id, item.cluster, tuple(sorted(item.strata.items())), value)

    def stratum(self, name: str) -> str:
        """Value of a stratum, empty where the item has none of that name."""
        return next((value for key, value in self.strata if key == name), "")


@dataclass(frozen=True)
class Unit:
    """Contribution of one item or group of items: `amount` to the numerator, `weight` to the denominator."""

    cluster: str
    amount: float
    weight: float = 1.0


@dataclass(frozen=True)
class Figure:
    """Figure of a benchmark.

    Attributes:
        name: unique among the figures of a benchmark.
        definition: what it is, in a sentence.
        units: what it is the ratio of.
        rises: True where an item that is right instead of wrong never lowers it. Rates of one kind of failure can fall,
            and have no bounds from items without a score.
    """

    name: str
    definition: str
    units: tuple[Unit, ...]
    rises: bool = True

    @property
    def value(self) -> float | None:
        """Sum of amounts over sum of weights; None where there is nothing to divide by."""
        weight = sum(unit.weight for unit in self.units)
        return sum(unit.amount for unit in self.units) / weight if weight else None


# Figures of one way of scoring; the first is the one usually quoted.
Figures = Callable[[Sequence[Mark]], tuple[Figure, ...]]


def mean(name: str, definition: str, marks: Iterable[Mark]) -> Figure:
    """Figure that is the mean of the items' values."""
    return Figure(name, definition, tuple(Unit(mark.cluster, mark.value) for mark in marks))


def mean_of_means(name: str, definition: str, marks: Sequence[Mark], stratum: str) -> Figure:
    """Figure that is the plain mean of the means within the values of a stratum, whatever their sizes.

    Items whose value is not known (rows that are no item) have the weight that they have in the mean of all.
    """
    parts = split(marks, stratum)
    unknown = parts.pop("", [])
    known = 1 - len(unknown) / len(marks) if marks else 0.0
    # weights of all units sum to 1
    units = [Unit(mark.cluster, mark.value / len(marks), 1 / len(marks)) for mark in unknown]
    for part in parts.values():
        weight = known / (len(parts) * len(part))
        units += [Unit(mark.cluster, mark.value * weight, weight) for mark in part]
    return Figure(name, definition, tuple(units))


def split(marks: Iterable[Mark], stratum: str) -> dict[str, list[Mark]]:
    """Marks by the value of a stratum, values in order of their text."""
    parts: dict[str, list[Mark]] = {}
    for mark in marks:
        parts.setdefault(mark.stratum(stratum), []).append(mark)
    return dict(sorted(parts.items()))


def means_by(marks: Sequence[Mark], stratum: str) -> tuple[Figure, ...]:
    """Figure for each value of a stratum, under that value's name."""
    return tuple(mean(value, f"items with {stratum} {value}", part) for value, part in split(marks, stratum).items())


def accuracy(marks: Sequence[Mark]) -> tuple[Figure, ...]:
    """The one figure of a benchmark without parts."""
    return (mean("accuracy", "mean over all items", marks),)


@dataclass(frozen=True)
class BoundedFigure:
    """Figure in which items without a score are wrong, and its value if every one of them were right.

    `upper` is None for a figure that can fall where an item is right, or with nothing to divide by.
    """

    figure: Figure
    upper: float | None


def bounded(figures: Figures, scored: Iterable[tuple[Item, float | None]]) -> tuple[BoundedFigure, ...]:
    """Figures of items with their values under one way of scoring; None for an item without one.

    Every item counts, whatever the reason: an image that cannot be read, an endpoint or a judge that has failed.
    """
    marks = [(Mark.of(item, value or 0.0), value is None) for item, value in scored]
    least = figures([mark for mark, _ in marks])
    most = figures([replace(mark, value=1.0) if missing else mark for mark, missing in marks])
    return tuple(BoundedFigure(low, high.value if low.rises else None) for low, high in zip(least, most, strict=True))
