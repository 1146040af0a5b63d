"""Intervals of rates whose questions come in clusters: orders of one question, versions of one problem, its steps.

Answers of a cluster are alike, so that they hold less than as many independent ones. The variance is that between
clusters, of the linearised ratio (W. G. Cochran, Sampling Techniques, 1977). The interval is Wilson's for the number of
independent answers that would vary as much, with the quantile of t for the clusters (E. L. Korn and B. I. Graubard,
Survey Methodology 24, 1998, who take Clopper's and Pearson's interval for that number).

`python -m benchmarks.evaluation_statistics` measures how often it holds the truth, beside other methods.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from codedance_verl.statistics.intervals import Array, Interval, wilson

NO_VARIANCE = 1e-20
"""Variance of a rate below which clusters are alike but for rounding."""


@dataclass(frozen=True)
class Rate:
    """A rate over questions in clusters.

    Attributes:
        value: in [0, 1].
        interval: 95 %; None where there are fewer than two clusters.
        clusters: clusters that the rate was observed in.
    """

    value: float
    interval: Interval | None
    clusters: int


@dataclass(frozen=True)
class ClusterSums:
    """Sums that each cluster adds to numerator and denominator of a rate, float64 [clusters] both.

    Any figure that is a ratio of sums over clusters fits. A plain mean has the right answers and the answers of each
    cluster; a score of composites (all right; WeMath's) has that score and 1; a share among composites of one kind has
    0 or 1 in both. A cluster with denominator 0 is not observed and does not count.
    """

    numerators: Array
    denominators: Array

    def __post_init__(self) -> None:
        if self.numerators.shape != self.denominators.shape or self.numerators.ndim != 1:
            raise ValueError(f"shapes {self.numerators.shape} and {self.denominators.shape}: two vectors are needed")

    def observed(self) -> ClusterSums:
        """Clusters whose denominator is not 0."""
        seen = self.denominators > 0
        return ClusterSums(self.numerators[seen], self.denominators[seen])

    @property
    def clusters(self) -> int:
        """Number of observed clusters."""
        return int((self.denominators > 0).sum())

    @property
    def rate(self) -> float:
        """Sum of the numerators by that of the denominators; NaN where nothing was observed."""
        total = float(self.denominators.sum())
        return float(self.numerators.sum()) / total if total else float("nan")

    @property
    def variance(self) -> float:
        """Variance of the rate between clusters; NaN for fewer than two."""
        return ratio_variance(self.observed(), self.rate)

    @property
    def effective_answers(self) -> float:
        """Independent answers that would vary as much; where clusters do not vary, one for each of them."""
        variance = self.variance
        if variance < NO_VARIANCE:
            return float(self.clusters)
        return self.rate * (1 - self.rate) / variance

    @property
    def design_effect(self) -> float:
        """Variance of the rate by that of as many independent answers."""
        return float(self.denominators.sum()) / self.effective_answers


def ratio_variance(sums: ClusterSums, rate: float) -> float:
    """Variance of the ratio of sums over clusters, all of them observed; NaN for fewer than two."""
    clusters = sums.denominators.size
    if clusters < 2:
        return float("nan")
    # What a cluster adds beyond its share, float64 [clusters]; their sum is 0.
    residuals = sums.numerators - rate * sums.denominators
    return float(clusters / (clusters - 1) * (residuals**2).sum() / sums.denominators.sum() ** 2)


def t_quantile(clusters: int) -> float:
    """Two-sided 95 % quantile of t for a variance between so many clusters."""
    return float(stdtrit(clusters - 1, 0.975))


def cluster_interval(sums: ClusterSums) -> Interval | None:
    """95 % interval of a rate in [0, 1]; None where there are fewer than two clusters."""
    clusters = sums.clusters
    if clusters < 2:
        return None
    answers = sums.effective_answers
    return wilson(sums.rate * answers, answers, t_quantile(clusters))


def cluster_rate(sums: ClusterSums) -> Rate | None:
    """The rate with its interval; None where nothing was observed."""
    return Rate(sums.rate, cluster_interval(sums), sums.clusters) if sums.clusters else None


def sums_by_cluster(
    numerators: Sequence[float] | Array, denominators: Sequence[float] | Array, clusters: Sequence[str] | None = None
) -> ClusterSums:
    """Sums of rows by the name of their cluster, in the order of the names; without names each row is a cluster.

    Both are scaled until the denominators add up to the number of rows that have one, so that weights of rows (for a
    mean of means) leave the number of answers as it is.

    Args:
        numerators, denominators: of each row.
        clusters: name of each row's cluster.
    """
    above, below = np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)
    weight = float(below.sum())
    scale = float((below > 0).sum()) / weight if weight else 1.0
    if clusters is None:
        return ClusterSums(above * scale, below * scale)
    _, members = np.unique(clusters, return_inverse=True)
    # weighted counts are sums by cluster, float64 [clusters]
    sums = [np.asarray(np.bincount(members, rows * scale), dtype=np.float64) for rows in (above, below)]
    return ClusterSums(*sums)
