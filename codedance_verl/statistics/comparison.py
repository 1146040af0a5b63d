"""Comparison of two models by question: exact tests, intervals, and a plain sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from codedance_verl.statistics.clusters import ClusterSums
from codedance_verl.statistics.differences import (
    ClusterDifferences,
    bootstrap_difference,
    cluster_differences,
    difference_interval,
    difference_test,
)
from codedance_verl.statistics.intervals import Interval
from codedance_verl.statistics.pairs import PairedCounts, PValues, newcombe_pairs, paired_counts
from codedance_verl.statistics.power import LEVEL, PowerLine, smallest_paired


@dataclass(frozen=True)
class Side:
    """Figure of one model, on the clusters of both in the same order.

    Attributes:
        model: its name.
        measured: sums over the clusters in which both models measured everything.
        wrong: sums over all clusters, what was not measured counted wrong, as in the headline.
        right: sums with all of that right; None for a figure that can fall where an item is right instead of wrong.
        not_measured: samples that this model did not measure.
        counted: word for what the figure counts.
    """

    model: str
    measured: ClusterSums
    wrong: ClusterSums
    right: ClusterSums | None
    not_measured: int
    counted: str = "items"


@dataclass(frozen=True)
class Comparison:
    """Two models on the same questions. Clusters in which either did not measure everything are left out.

    Attributes:
        model_a, model_b: their names.
        cases: compared: items, those of a part, or composites of several; `counted` is a word for them.
        clusters: compared.
        rate_a, rate_b: the figure of each, over what is compared.
        headline_a, headline_b: the figure of each over all items, what was not measured counted wrong.
        difference: A less B.
        interval: 95 %, Tango's for clusters.
        bootstrap: 95 %, percentiles over resampled clusters.
        p: of no difference, by exchange of the models within clusters; McNemar's where there is a table.
        table: clusters by who is right; None where a cluster is more than one right or wrong answer.
        newcombe: 95 % from that table.
        not_measured: samples that A, that B did not measure.
        bounds: the difference over all items, had everything that was not measured gone against A, or against B; None
            for a figure that can fall where an item is right.
        power: the smallest difference that these questions show.
        unlike: settings in which the two evaluations differ, where the comparison was forced.
    """

    model_a: str
    model_b: str
    cases: int
    counted: str
    clusters: int
    rate_a: float
    rate_b: float
    headline_a: float
    headline_b: float
    difference: float
    interval: Interval
    bootstrap: Interval
    p: PValues
    table: PairedCounts | None
    newcombe: Interval | None
    not_measured: tuple[int, int]
    bounds: Interval | None
    power: PowerLine
    unlike: tuple[str, ...]

    @property
    def seen(self) -> bool:
        """True where the exact p-value is at most 5 %."""
        return self.p.exact <= LEVEL

    @property
    def sentence(self) -> str:
        """The comparison in plain words, in points of percent."""
        forced = f" Forced, although they differ in {'; '.join(self.unlike)}." if self.unlike else ""
        return self._difference_said() + self._missing_said() + forced

    def _difference_said(self) -> str:
        of = f"{self.cases:,} {self.counted}"
        of += f" in {self.clusters:,} clusters" if self.clusters < self.cases else ""
        # the better model is named first, so the ends of the interval change sign and places
        backwards = self.seen and self.difference < 0
        low, high = (-self.interval.high, -self.interval.low) if backwards else self.interval
        first, second = (self.model_b, self.model_a) if backwards else (self.model_a, self.model_b)
        if self.seen:
            word = "higher" if self.bounds is None else "better"  # a rate of failures that is higher is no better
            said = f"{first} is {100 * abs(self.difference):.1f} points {word} than {second}"
        else:
            said = f"No difference between {first} and {second} is seen: "
            said += f"{first} less {second} is {100 * self.difference:+.1f} points"
        said += f" ({100 * low:+.1f} to {100 * high:+.1f}) over {of}, exact p = {p_text(self.p.exact)}."
        return said if self.seen else f"{said} {self.power.sentence}"

    def _missing_said(self) -> str:
        if not any(self.not_measured):
            return ""
        said = f" Left out is what was not measured ({self.not_measured[0]} of {self.model_a}, "
        said += f"{self.not_measured[1]} of {self.model_b}); "
        if self.bounds is None:
            said += "it could move the difference either way."
        else:
            said += f"it could move the difference to {100 * self.bounds.low:+.1f} or {100 * self.bounds.high:+.1f}."
        both = f"{100 * self.headline_a:.1f} % and {100 * self.headline_b:.1f} %"
        return f"{said} Counted as wrong, as in the headlines, it makes {both}."


def compare(a: Side, b: Side, *, unlike: Sequence[str] = (), seed: int = 0) -> Comparison:
    """Compares a figure of two models cluster by cluster.

    Args:
        unlike: settings in which the two evaluations differ, for the sentence.
        seed: of the bootstrap.

    Raises:
        UserError: both have measured fewer than two clusters, or the figure counts other clusters for A than for B.
    """
    sides = cluster_differences(a.measured, b.measured)
    table = paired_counts(a.measured, b.measured)
    return Comparison(
        model_a=a.model,
        model_b=b.model,
        cases=round(sides.total),  # scaled weights add up to a whole number but for rounding
        counted=a.counted,
        clusters=sides.clusters,
        rate_a=a.measured.rate,
        rate_b=b.measured.rate,
        headline_a=a.wrong.rate,
        headline_b=b.wrong.rate,
        difference=sides.value,
        interval=difference_interval(sides),
        bootstrap=bootstrap_difference(sides, seed),
        p=difference_test(sides),
        table=table,
        newcombe=None if table is None else newcombe_pairs(table),
        not_measured=(a.not_measured, b.not_measured),
        bounds=_bounds(a, b),
        power=_power(sides),
        unlike=tuple(unlike),
    )


def p_text(value: float) -> str:
    """p-value with two digits, from 0.0001 on."""
    return "under 0.0001" if value < 1e-4 else f"{value:.2g}"


def _bounds(a: Side, b: Side) -> Interval | None:
    if a.right is None or b.right is None:
        return None
    # worst for A is all of its missing samples wrong and all of B's right; then the other way round
    return Interval(a.wrong.rate - b.right.rate, a.right.rate - b.wrong.rate)


def _power(sides: ClusterDifferences) -> PowerLine:
    """Power with the discordance and the design effect that were measured; one pair, where no cluster differs."""
    discordance = max(sides.discordance, 1 / sides.total)
    return smallest_paired(round(sides.total), min(1.0, discordance), design_effect=sides.design_effect)
