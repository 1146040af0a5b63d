"""Headline of a benchmark: every item counts, one that was not measured counts wrong, and what that could hide is said.

Bounds that follow from unknown outcomes alone, without an assumption about them, are those of C. F. Manski (Partial
Identification of Probability Distributions, 2003). The interval around both is the union of the intervals at either
end: it holds the rate with all items measured at least as often as it says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from codedance_verl.statistics.clusters import ClusterSums, Rate, cluster_interval, cluster_rate
from codedance_verl.statistics.intervals import Interval


@dataclass(frozen=True)
class Scenarios:
    """Sums of a figure under what the samples that were not measured could have been.

    Attributes:
        items: of the benchmark, measured or not.
        faults: samples of items that were not measured, by why.
        wrong: sums with all of these wrong.
        measured: sums over the clusters in which everything was measured.
        right: sums with all of these right; None for a figure that can fall where an item is right instead of wrong.
        right_by_fault: sums with those of one fault right and the others wrong; empty without `right`.
        samples: replies to an item, which the sums average.
    """

    items: int
    faults: Mapping[str, int]
    wrong: ClusterSums
    measured: ClusterSums
    right: ClusterSums | None
    right_by_fault: Mapping[str, ClusterSums] = field(default_factory=dict, hash=False)
    samples: int = 1


@dataclass(frozen=True)
class Headline:
    """Figure over all items of a benchmark's revision.

    Attributes:
        items: of the benchmark.
        cases: what the figure counts: items, those of a part, or composites of several.
        value: with samples that were not measured counted wrong: the headline.
        best: had all of these been right; None for a figure that can fall where an item is right.
        bounds: 95 %, from the lower end at `value` to the upper end at `best`; None without `best`, or for fewer than
            two clusters.
        measured: over the clusters in which everything was measured, for comparison; None where there is none.
        faults: samples of the benchmark's items that were not measured, by why.
        could_add: what these could add to `value`, by why; empty without `best`.
        design_effect: variance of the headline by that of as many independent cases.
        samples: replies to an item.
    """

    items: int
    cases: int
    value: Rate
    best: float | None
    bounds: Interval | None
    measured: Rate | None
    faults: Mapping[str, int]
    could_add: Mapping[str, float]
    design_effect: float
    samples: int

    @property
    def not_measured(self) -> int:
        """Samples that were not measured, for whatever reason."""
        return sum(self.faults.values())

    @property
    def sentence(self) -> str:
        """The headline in words, in percent."""
        of = _count(self.items, "item") if self.cases == self.items else _count(self.cases, "case")
        text = f"{100 * self.value.value:.1f} %{_ends(self.value.interval)} of {of}"
        if self.value.clusters < self.cases:
            text += f" in {_count(self.value.clusters, 'cluster')}"
        if not self.not_measured:
            return f"{text}; all were measured."
        asked = _count(self.items, "item") if self.samples == 1 else _count(self.items * self.samples, "sample")
        why = ", ".join(f"{number} {fault}" for fault, number in self.faults.items())
        text += f"; {self.not_measured} of {asked} were not measured and count as wrong ({why}). "
        if self.best is None:
            return text + "They could have moved this figure either way."
        if self.best == self.value.value:
            return text + "They could not have changed this figure."
        return (
            f"{text}Had they all been right: {100 * self.best:.1f} %; both with their uncertainty{_ends(self.bounds)}."
        )


def headline(sums: Scenarios) -> Headline | None:
    """Headline of a figure; None where it counts nothing, such as a share of right answers where there is none."""
    value = cluster_rate(sums.wrong)
    if value is None:
        return None
    low = cluster_interval(sums.wrong)
    high = None if sums.right is None else cluster_interval(sums.right)
    return Headline(
        items=sums.items,
        cases=round(float(sums.wrong.denominators.sum())),
        value=value,
        best=None if sums.right is None else sums.right.rate,
        bounds=Interval(low.low, high.high) if low and high else None,
        measured=cluster_rate(sums.measured),
        faults=dict(sorted(sums.faults.items())),
        could_add={fault: right.rate - value.value for fault, right in sorted(sums.right_by_fault.items())},
        design_effect=sums.wrong.design_effect,
        samples=sums.samples,
    )


def _ends(interval: Interval | None) -> str:
    return f" ({100 * interval.low:.1f} to {100 * interval.high:.1f})" if interval else ""


def _count(number: int, name: str) -> str:
    return f"{number:,} {name}{'' if number == 1 else 's'}"
