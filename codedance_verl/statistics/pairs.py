"""Paired answers of two models: exact tests of a difference, and its intervals.

Pairs in which both are right or both wrong say nothing about which model is better; the tests see the others alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln

from codedance_verl.statistics.clusters import ClusterSums
from codedance_verl.statistics.intervals import Z_95, Array, Interval, wilson

EXCHANGES = 20_000
"""Exchanges that are drawn where they cannot all be counted."""

ROUNDING = 1e-9
"""Difference below which two sums of answers are the same."""

_MOST_PARTS = 64
_BISECTIONS = 60
"""Halvings of an interval no longer than 2: the rest is less than rounding."""


@dataclass(frozen=True)
class PairedCounts:
    """Pairs of answers to the same question by who is right."""

    both: int
    only_a: int
    only_b: int
    neither: int

    @property
    def pairs(self) -> int:
        """All pairs."""
        return self.both + self.only_a + self.only_b + self.neither

    @property
    def difference(self) -> float:
        """Accuracy of A less that of B."""
        return (self.only_a - self.only_b) / self.pairs


def paired_counts(a: ClusterSums, b: ClusterSums) -> PairedCounts | None:
    """Clusters by who is right; None where one is more than a right or a wrong answer.

    Sums come from weights (a mean of means scales them), so that 1 is 1 but for rounding.
    """
    right_a, right_b = np.abs(a.numerators - 1) < ROUNDING, np.abs(b.numerators - 1) < ROUNDING
    wrong_a, wrong_b = np.abs(a.numerators) < ROUNDING, np.abs(b.numerators) < ROUNDING
    single = (np.abs(sums.denominators - 1) < ROUNDING for sums in (a, b))
    if not all(map(np.all, (right_a | wrong_a, right_b | wrong_b, *single))):
        return None
    kinds = (right_a & right_b, right_a & wrong_b, wrong_a & right_b, wrong_a & wrong_b)
    return PairedCounts(*(int(kind.sum()) for kind in kinds))


@dataclass(frozen=True)
class PValues:
    """Two-sided p-values of no difference.

    Attributes:
        exact: never under 5 % more often than in 5 % of cases without a difference; mostly less often.
        mid: counts what is as extreme as the data half (H. O. Lancaster, JASA 56, 1961); nearer to 5 %, not guaranteed.
    """

    exact: float
    mid: float


def mcnemar(only_a: int, only_b: int) -> PValues:
    """McNemar's test, exact (Q. McNemar, Psychometrika 12, 1947) and mid-p.

    Fagerland, Lydersen and Laake (BMC Medical Research Methodology 13:91, 2013) compare both.
    """
    return sign_flip(np.array([1.0] * only_a + [-1.0] * only_b))


def sign_flip(differences: Array) -> PValues:
    """Permutation test over clusters: the two models change places in each with probability 1/2.

    It is McNemar's exact test where every cluster is one right or wrong answer. Where differences are multiples of a
    common part, as sums of answers are, all 2^clusters exchanges are counted: the distribution of the sum is a
    convolution of binomials, one for each size of difference. Else exchanges are drawn, and the p-values are at least
    1 by their number.

    Args:
        differences: sum of A less that of B in each cluster, float64 [clusters].
    """
    steps = _whole_steps(differences)
    if steps is None:
        return _drawn_exchanges(np.abs(differences), abs(float(differences.sum())))
    observed = abs(int(steps.sum()))
    sizes, counts = np.unique(np.abs(steps[steps != 0]), return_counts=True)
    chances: Array = np.ones(1)  # of sums -T, -T + 2, ... T, float64 [T + 1]
    for size, number in zip(sizes.tolist(), counts.tolist(), strict=True):
        # `up` of these clusters count for A: the sum moves by 2 * size with each.
        one_size = np.zeros(size * number + 1)
        one_size[::size] = _fair_coins(number)
        chances = np.asarray(np.convolve(chances, one_size), dtype=np.float64)
    sums = np.abs(np.arange(chances.size) * 2 - (chances.size - 1))
    as_extreme, more = float(chances[sums >= observed].sum()), float(chances[sums > observed].sum())
    # a sum of many probabilities may pass 1 by rounding
    return PValues(min(1.0, as_extreme), min(1.0, (as_extreme + more) / 2))


def _drawn_exchanges(sizes: Array, observed: float) -> PValues:
    """p-values from exchanges that are drawn; those of the data count as one (B. Phipson and G. K. Smyth, 2010)."""
    ordered, counts = np.unique(sizes, return_counts=True)
    # a fixed seed: the same answers have the same p-value each time
    ups = np.random.default_rng(0).binomial(counts, 0.5, (EXCHANGES, counts.size))
    sums = np.abs((2 * ups - counts) @ ordered)
    # an exchange that equals the data counts, though its sum was added up in another order
    rounding = 1e-9 * float(sizes.sum())
    as_extreme, more = int((sums >= observed - rounding).sum()), int((sums > observed + rounding).sum())
    return PValues((1 + as_extreme) / (1 + EXCHANGES), (1 + (as_extreme + more) / 2) / (1 + EXCHANGES))


def newcombe_pairs(counts: PairedCounts, z: float = Z_95) -> Interval:
    """Interval of a paired difference from Wilson's of both sides (Newcombe, Stat. Med. 17:2635, 1998, method 10)."""
    pairs, difference = counts.pairs, counts.difference
    right_a, right_b = counts.both + counts.only_a, counts.both + counts.only_b
    a, b, correlation = wilson(right_a, pairs, z), wilson(right_b, pairs, z), _correlation(counts)

    def half(first: float, second: float) -> float:
        return math.sqrt(max(0.0, first * first - 2 * correlation * first * second + second * second))

    share_a, share_b = right_a / pairs, right_b / pairs
    return Interval(
        difference - half(share_a - a.low, b.high - share_b), difference + half(a.high - share_a, share_b - b.low)
    )


def score_interval(gained: float, lost: float, pairs: float, z: float = Z_95) -> Interval:
    """Score interval of a paired difference (T. Tango, Statistics in Medicine 17, 1998).

    Args:
        gained, lost: pairs in which only A, only B is right; need not be whole.
        pairs: all pairs.
    """
    estimate = (gained - lost) / pairs

    def too_far(difference: float) -> bool:
        return abs(_score(gained, lost, pairs, difference)) > z

    return Interval(_last_inside(too_far, estimate, -1.0), _last_inside(too_far, estimate, 1.0))


def _score(gained: float, lost: float, pairs: float, difference: float) -> float:
    """Deviation of the data from a supposed difference, in standard errors under it."""
    # Likeliest share of pairs that only B has right, given the difference: the root of a quadratic equation.
    linear = (2 * pairs - gained + lost) * difference - gained - lost
    constant = -lost * difference * (1 - difference)
    share = (math.sqrt(max(0.0, linear * linear - 8 * pairs * constant)) - linear) / (4 * pairs)
    variance = pairs * (2 * share + difference * (1 - difference))
    deviation = gained - lost - pairs * difference
    if variance <= 0:
        return 0.0 if abs(deviation) < 1e-9 * pairs else math.copysign(math.inf, deviation)
    return deviation / math.sqrt(variance)


def _last_inside(outside: Callable[[float], bool], inside: float, end: float) -> float:
    """Last point inside on the way from `inside`, which is, to `end`; by bisection."""
    if not outside(end):
        return end
    for _ in range(_BISECTIONS):
        middle = (inside + end) / 2
        if outside(middle):
            end = middle
        else:
            inside = middle
    return inside


def _correlation(counts: PairedCounts) -> float:
    """Correlation of both sides, corrected for continuity as Newcombe's method 10 asks; 0 where a margin is 0."""
    margins = (
        (counts.both + counts.only_a)
        * (counts.only_b + counts.neither)
        * (counts.both + counts.only_b)
        * (counts.only_a + counts.neither)
    )
    if margins == 0:
        return 0.0
    above = counts.both * counts.neither - counts.only_a * counts.only_b
    return (max(above - counts.pairs / 2, 0.0) if above > 0 else above) / math.sqrt(margins)


def _fair_coins(number: int) -> Array:
    """Probabilities of 0 to `number` heads, float64 [number + 1]."""
    heads = np.arange(number + 1)
    # as logarithms: from 1,024 clusters on, 2**number is beyond floats
    logs = gammaln(number + 1) - gammaln(heads + 1) - gammaln(number - heads + 1) - number * math.log(2)
    return np.asarray(np.exp(logs))


def _whole_steps(differences: Array) -> npt.NDArray[np.int64] | None:
    """Differences as multiples of their common part, int64 [clusters]; None where there is none down to 1/64."""
    for parts in range(1, _MOST_PARTS + 1):
        steps = np.rint(differences * parts)
        # no relative tolerance, which would let large differences pass as whole
        if np.allclose(steps, differences * parts, rtol=0, atol=ROUNDING):
            return np.asarray(steps, dtype=np.int64)
    return None
