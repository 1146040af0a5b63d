"""Methods whose 95 % intervals `evaluation_statistics` compares: this project's, and others."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from scipy.special import ndtr, ndtri

from codedance_verl.statistics.clusters import (
    NO_VARIANCE,
    ClusterSums,
    cluster_interval,
    ratio_variance,
    t_quantile,
)
from codedance_verl.statistics.differences import ClusterDifferences, bootstrap_difference, difference_interval
from codedance_verl.statistics.intervals import Array, Interval, wilson

_RESAMPLES = 1_000


def ours(sums: ClusterSums) -> Interval:
    """Wilson's interval for the answers that would vary as much."""
    found = cluster_interval(sums)
    assert found is not None
    return found


def independent(sums: ClusterSums) -> Interval:
    """Wilson's interval, as if the answers of a cluster were independent."""
    return wilson(float(sums.numerators.sum()), float(sums.denominators.sum()))


def t_interval(sums: ClusterSums) -> Interval:
    """Rate +- t times the error between clusters."""
    half = t_quantile(sums.clusters) * float(np.sqrt(sums.variance))
    return Interval(sums.rate - half, sums.rate + half)


def percentile(sums: ClusterSums) -> Interval:
    """Middle 95 % of rates over resampled clusters."""
    return _quantiles(_resampled(sums)[0], 0.025, 0.975)


def bca(sums: ClusterSums) -> Interval:
    """Percentiles corrected for bias and acceleration (B. Efron, JASA 82, 1987)."""
    rates = _resampled(sums)[0]
    below = (np.mean(rates < sums.rate) + np.mean(rates <= sums.rate)) / 2
    bias = float(ndtri(np.clip(below, 1 / _RESAMPLES, 1 - 1 / _RESAMPLES)))
    # A cluster's influence is its residual.
    influences = sums.numerators - sums.rate * sums.denominators
    if not influences.any():
        return Interval(sums.rate, sums.rate)
    skew = float((influences**3).sum() / (6 * (influences**2).sum() ** 1.5))
    levels = [float(ndtr(bias + (bias + z) / (1 - skew * (bias + z)))) for z in (-1.96, 1.96)]
    return _quantiles(rates, *levels)


def bootstrap_t(sums: ClusterSums) -> Interval:
    """Studentised: quantiles of deviations by their own error (P. Hall, Annals of Statistics 16, 1988)."""
    rates, variances = _resampled(sums)
    usable = variances > NO_VARIANCE
    if usable.sum() < _RESAMPLES / 10:
        return Interval(sums.rate, sums.rate)
    low, high = np.quantile((rates[usable] - sums.rate) / np.sqrt(variances[usable]), [0.025, 0.975])
    error = float(np.sqrt(sums.variance))
    return Interval(sums.rate - float(high) * error, sums.rate - float(low) * error)


def t_difference(sides: ClusterDifferences) -> Interval:
    """Difference +- t times the error between clusters."""
    variance = ratio_variance(ClusterSums(sides.differences, sides.denominators), sides.value)
    half = t_quantile(sides.clusters) * float(np.sqrt(variance))
    return Interval(sides.value - half, sides.value + half)


def resampled_difference(sides: ClusterDifferences) -> Interval:
    """The clustered bootstrap that `compare` gives beside its interval."""
    return bootstrap_difference(sides, resamples=_RESAMPLES)


RATE_METHODS: Mapping[str, Callable[[ClusterSums], Interval]] = {
    "Wilson, by cluster": ours,
    "Wilson, independent": independent,
    "t": t_interval,
    "percentile": percentile,
    "BCa": bca,
    "bootstrap-t": bootstrap_t,
}
DIFFERENCE_METHODS: Mapping[str, Callable[[ClusterDifferences], Interval]] = {
    "Tango, by cluster": difference_interval,
    "t, difference": t_difference,
    "bootstrap, difference": resampled_difference,
}
RESAMPLED = ("percentile", "BCa", "bootstrap-t", "bootstrap, difference")


def _resampled(sums: ClusterSums) -> tuple[Array, Array]:
    """Rate of every resample and its variance between clusters, float64 [resamples] each."""
    kinds, counts = np.unique(np.stack([sums.numerators, sums.denominators], axis=1), axis=0, return_counts=True)
    clusters = sums.numerators.size
    drawn = np.random.default_rng(0).multinomial(clusters, counts / clusters, _RESAMPLES)  # [resamples, kinds]
    above, below = (drawn @ kinds).T
    rates = above / below
    residuals = kinds[:, 0] - rates[:, None] * kinds[:, 1]  # [resamples, kinds]
    variances = clusters / (clusters - 1) * (drawn * residuals**2).sum(axis=1) / below**2
    return rates, variances


def _quantiles(values: Array, low: float, high: float) -> Interval:
    ends = np.quantile(values, [low, high])
    return Interval(float(ends[0]), float(ends[1]))
