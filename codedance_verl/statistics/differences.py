"""Difference of two models over the same clusters of questions: its interval, its p-value, its bootstrap."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from codedance_verl.errors import UserError
from codedance_verl.statistics.clusters import NO_VARIANCE, ClusterSums, ratio_variance, t_quantile
from codedance_verl.statistics.intervals import RESAMPLES, Array, Interval
from codedance_verl.statistics.pairs import PValues, score_interval, sign_flip


@dataclass(frozen=True)
class ClusterDifferences:
    """A less B in each cluster, and what both are divided by; float64 [clusters] each."""

    differences: Array
    denominators: Array

    @property
    def clusters(self) -> int:
        """Number of clusters."""
        return int(self.differences.size)

    @property
    def total(self) -> float:
        """Sum of the denominators: items, or composites."""
        return float(self.denominators.sum())

    @property
    def value(self) -> float:
        """Difference of the two rates."""
        return float(self.differences.sum()) / self.total

    @property
    def gained(self) -> float:
        """Sum over the clusters in which A is ahead."""
        return float(self.differences[self.differences > 0].sum())

    @property
    def lost(self) -> float:
        """Sum over the clusters in which B is ahead, as a positive number."""
        return float(-self.differences[self.differences < 0].sum())

    @property
    def discordance(self) -> float:
        """Share of pairs that tell the models apart, with those that cancel within a cluster left out."""
        return (self.gained + self.lost) / self.total

    @property
    def effective_pairs(self) -> float:
        """Independent pairs whose difference would vary as much; where clusters do not vary, one for each of them."""
        variance = ratio_variance(ClusterSums(self.differences, self.denominators), self.value)
        if variance < NO_VARIANCE:
            return float(self.clusters)
        return (self.discordance - self.value**2) / variance

    @property
    def design_effect(self) -> float:
        """Variance of the difference by that of as many independent pairs."""
        return self.total / self.effective_pairs


def cluster_differences(a: ClusterSums, b: ClusterSums) -> ClusterDifferences:
    """Differences of two models over the same clusters in the same order.

    Raises:
        UserError: there are fewer than two clusters, or the figure counts other clusters for A than for B.
    """
    # close, not equal: the weights of each side were scaled on their own
    if a.denominators.shape != b.denominators.shape or not np.allclose(a.denominators, b.denominators):
        raise UserError("this figure counts other questions for A than for B; compare an accuracy or a score of all")
    seen = a.denominators > 0
    if int(seen.sum()) < 2:
        raise UserError("fewer than two questions were measured for both; there is nothing to compare")
    return ClusterDifferences((a.numerators - b.numerators)[seen], a.denominators[seen])


def difference_interval(sides: ClusterDifferences) -> Interval:
    """95 % interval of the difference: Tango's score interval for as many independent pairs as would vary as much."""
    # both sums shrink with the pairs, which leaves the difference as it is
    scale = sides.effective_pairs / sides.total
    return score_interval(sides.gained * scale, sides.lost * scale, sides.effective_pairs, t_quantile(sides.clusters))


def difference_test(sides: ClusterDifferences) -> PValues:
    """p-values of no difference, by exchange of the models within clusters. Raises UserError as `sign_flip` does."""
    return sign_flip(sides.differences)


def bootstrap_difference(sides: ClusterDifferences, seed: int = 0, resamples: int = RESAMPLES) -> Interval:
    """Middle 95 % of the difference over resampled clusters.

    Clusters that are alike are drawn as one kind, so the order of the clusters does not matter. Drawing for A less B
    and for B less A and averaging both makes an exchange of the models change the sign and nothing else.
    """
    forth = _percentiles(sides.differences, sides.denominators, seed, resamples)
    back = _percentiles(-sides.differences, sides.denominators, seed, resamples)
    return Interval((forth.low - back.high) / 2, (forth.high - back.low) / 2)


def _percentiles(differences: Array, denominators: Array, seed: int, resamples: int) -> Interval:
    kinds, counts = np.unique(np.stack([differences, denominators], axis=1), axis=0, return_counts=True)
    # How often each kind of cluster is drawn, [resamples, kinds].
    drawn = np.random.default_rng(seed).multinomial(differences.size, counts / differences.size, resamples)
    sums = drawn @ kinds  # [resamples, 2]
    low, high = np.quantile(sums[:, 0] / sums[:, 1], [0.025, 0.975])
    return Interval(float(low), float(high))
