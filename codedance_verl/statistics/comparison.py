"""Comparison of two models by question: what must agree, exact tests, intervals, and a plain sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from codedance_verl.errors import UserError
from codedance_verl.statistics.clusters import ClusterSums
from codedance_verl.statistics.differences import (
    ClusterDifferences,
    bootstrap_difference,
    cluster_differences,
    difference_interval,
    difference_test,
)
from codedance_verl.statistics.intervals import Interval
from codedance_verl.statistics.items import Figure, Item, mean_of_items, unmeasured_clusters, valued
from codedance_verl.statistics.pairs import PairedCounts, PValues, newcombe_pairs
from codedance_verl.statistics.power import LEVEL, PowerLine, smallest_paired


@dataclass(frozen=True)
class Conditions:
    """Conditions that two evaluations must have in common for their difference to be that of the models.

    Attributes:
        benchmark, revision: the items, and where they are from.
        prompt: hash of system prompt and question template.
        scorer: name and version of the rule that scores an answer.
        judge: model and hash of the prompt of the judge; empty where none is asked.
        control: what was changed on purpose, such as "no_tools"; empty where nothing was.
        temperature, top_p: of sampling.
        samples: answers to an item, averaged.
        attempts: tries until an answer is accepted; more than 1 is a budget of its own.
        max_turns: of a trajectory, 1 or more.
        max_tokens: of a trajectory, all turns together.
        time_limit_s: seconds of a trajectory.
        max_pixels: of an image that the model gets.
    """

    benchmark: str
    revision: str
    prompt: str
    scorer: str
    judge: str
    control: str
    temperature: float
    top_p: float
    samples: int
    attempts: int
    max_turns: int
    max_tokens: int
    time_limit_s: float
    max_pixels: int

    def unlike(self, other: Conditions) -> tuple[str, ...]:
        """A line for each field in which the other differs: its name and both values."""
        pairs = ((field.name, getattr(self, field.name), getattr(other, field.name)) for field in fields(self))
        return tuple(f"{name}: {_shown(mine)} and {_shown(its)}" for name, mine, its in pairs if mine != its)


@dataclass(frozen=True)
class Evaluation:
    """Answers of one model to the items of a benchmark, whose keys name item and content (`statistics/items.py`)."""

    model: str
    conditions: Conditions
    items: tuple[Item, ...]


@dataclass(frozen=True)
class Comparison:
    """Two models on the same questions. Clusters with an item that either did not measure are left out.

    Attributes:
        model_a, model_b: their names.
        items, clusters: compared.
        rate_a, rate_b: the figure of each, over what is compared.
        difference: A less B.
        interval: 95 %, Tango's for clusters.
        bootstrap: 95 %, percentiles over resampled clusters.
        p: of no difference, by exchange of the models within clusters; McNemar's where there is a table.
        table: clusters by who is right; None where a cluster is more than one right or wrong answer.
        newcombe: 95 % from that table.
        not_measured: items that A, that B did not measure.
        bounds: the difference over all items, had every item that was not measured gone against A, or against B.
        power: the smallest difference that these questions show.
        unlike: conditions in which the two differ, where the comparison was forced.
    """

    model_a: str
    model_b: str
    items: int
    clusters: int
    rate_a: float
    rate_b: float
    difference: float
    interval: Interval
    bootstrap: Interval
    p: PValues
    table: PairedCounts | None
    newcombe: Interval | None
    not_measured: tuple[int, int]
    bounds: Interval
    power: PowerLine
    unlike: tuple[str, ...]

    @property
    def seen(self) -> bool:
        """True where the exact p-value is at most 5 %."""
        return self.p.exact <= LEVEL

    @property
    def sentence(self) -> str:
        """The comparison in plain words, in points of percent."""
        of = f"{self.items:,} items" + (f" in {self.clusters:,} clusters" if self.clusters < self.items else "")
        backwards = self.seen and self.difference < 0
        low, high = (-self.interval.high, -self.interval.low) if backwards else self.interval
        first, second = (self.model_b, self.model_a) if backwards else (self.model_a, self.model_b)
        if self.seen:
            said = f"{first} is {100 * abs(self.difference):.1f} points better than {second}"
        else:
            said = f"No difference between {first} and {second} is seen: "
            said += f"{first} less {second} is {100 * self.difference:+.1f} points"
        said += f" ({100 * low:+.1f} to {100 * high:+.1f}) over {of}, exact p = {_p(self.p.exact)}."
        if not self.seen:
            said += f" {self.power.sentence}"
        if any(self.not_measured):
            missing = f"{self.not_measured[0]} of {self.model_a}, {self.not_measured[1]} of {self.model_b}"
            said += f" Left out are items that were not measured ({missing}); they could move the difference to "
            said += f"{100 * self.bounds.low:+.1f} or {100 * self.bounds.high:+.1f}."
        return said + (f" Forced, although they differ in {'; '.join(self.unlike)}." if self.unlike else "")


def compare(
    a: Evaluation, b: Evaluation, figure: Figure = mean_of_items, *, force: bool = False, seed: int = 0
) -> Comparison:
    """Compares two models question by question: on the items of one key, whatever their order is.

    Args:
        figure: of the benchmark; accuracy over items, unless another is given.
        force: compares what does not agree, over the items that both have, and says what differs.
        seed: of the bootstrap.

    Raises:
        UserError: conditions or items differ, a line for each; the figure counts other clusters for A than for B; or
            both have measured fewer than two.
        ValueError: an item comes twice.
    """
    unlike = (*a.conditions.unlike(b.conditions), *_items_unlike(a, b))
    if unlike and not force:
        raise UserError("\n".join(f"{a.model} and {b.model} differ in {line}; force the comparison" for line in unlike))
    left, right = _in_common(a, b)
    broken = unmeasured_clusters((*left, *right))
    compared = [[item for item in side if item.cluster not in broken] for side in (left, right)]
    if not compared[0]:
        raise UserError("no question was measured for both models; there is nothing to compare")
    sums_a, sums_b = (figure(valued(side)) for side in compared)
    sides, table = cluster_differences(sums_a, sums_b), _table(sums_a, sums_b)
    return Comparison(
        model_a=a.model,
        model_b=b.model,
        items=len(compared[0]),
        clusters=sides.clusters,
        rate_a=sums_a.rate,
        rate_b=sums_b.rate,
        difference=sides.value,
        interval=difference_interval(sides),
        bootstrap=bootstrap_difference(sides, seed),
        p=difference_test(sides),
        table=table,
        newcombe=None if table is None else newcombe_pairs(table),
        not_measured=(_unmeasured(left), _unmeasured(right)),
        bounds=_bounds(left, right, figure),
        power=_power(sides),
        unlike=unlike,
    )


def _items_unlike(a: Evaluation, b: Evaluation) -> tuple[str, ...]:
    """Lines for items that one side alone has, and for those in another cluster."""
    mine, its = ({item.key: item.cluster for item in side.items} for side in (a, b))
    found = []
    for side, only in ((a, mine.keys() - its.keys()), (b, its.keys() - mine.keys())):
        if only:
            found.append(f"items: {len(only)} that {side.model} alone has, such as {min(only)}")
    moved = [key for key in mine.keys() & its.keys() if mine[key] != its[key]]
    if moved:
        found.append(f"clusters: {len(moved)} items are in others, such as {min(moved)}")
    return tuple(found)


def _in_common(a: Evaluation, b: Evaluation) -> tuple[list[Item], list[Item]]:
    """Items that both have, in the clusters of A."""
    clusters, keys_of_b = {item.key: item.cluster for item in a.items}, {item.key for item in b.items}
    left = [item for item in a.items if item.key in keys_of_b]
    return left, [replace(item, cluster=clusters[item.key]) for item in b.items if item.key in clusters]


def _table(a: ClusterSums, b: ClusterSums) -> PairedCounts | None:
    """Clusters by who is right; None where one is more than a right or a wrong answer."""
    if not (a.denominators == 1).all() or not np.isin([a.numerators, b.numerators], (0, 1)).all():
        return None
    right_a, right_b = a.numerators == 1, b.numerators == 1
    kinds = (right_a & right_b, right_a & ~right_b, ~right_a & right_b, ~right_a & ~right_b)
    return PairedCounts(*(int(kind.sum()) for kind in kinds))


def _unmeasured(items: Sequence[Item]) -> int:
    return sum(item.value is None for item in items)


def _bounds(left: Sequence[Item], right: Sequence[Item], figure: Figure) -> Interval:
    def rate(items: Sequence[Item], worth: float) -> float:
        return figure(valued(items, lambda _: worth)).rate

    return Interval(rate(left, 0.0) - rate(right, 1.0), rate(left, 1.0) - rate(right, 0.0))


def _power(sides: ClusterDifferences) -> PowerLine:
    """Power with the discordance and the design effect that were measured; one pair, where no cluster differs."""
    discordance = max(sides.discordance, 1 / sides.total)
    return smallest_paired(round(sides.total), min(1.0, discordance), design_effect=sides.design_effect)


def _p(value: float) -> str:
    return "under 0.0001" if value < 1e-4 else f"{value:.2g}"


def _shown(value: object) -> str:
    return repr(value) if isinstance(value, str) else str(value)
