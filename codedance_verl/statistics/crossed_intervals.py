"""95 % intervals over seeds and questions of rates that several runs of a method measured on the same questions.

`intervals.py` resamples questions alone: it says how well these models are measured, not how much other seeds would
differ. Here both are random. Seeds are crossed with questions, not nested in them, as every seed answers the same
questions; so both are resampled, independently of each other (A. B. Owen, "The pigeonhole bootstrap", Annals of Applied
Statistics 1, 2007).

The percentiles of that bootstrap do not fit few seeds: resampled seeds vary too little (by (S-1)/S), what is left
between seeds and questions counts too often, and S-1 degrees of freedom are not those of a normal distribution. The
levels of the percentiles are therefore moved, as T. Hesterberg does for one factor ("What teachers should know about
the bootstrap", American Statistician 69, 2015), until a normal bootstrap would give value +- t * error. Here `error` is
that of a two-way analysis of variance (V = V_seeds + V_questions - V_both), and t has its degrees of freedom
(F. E. Satterthwaite, Biometrics Bulletin 2, 1946). Where the difference is no more than the larger of its terms, that
term stands for it (J. G. MacKinnon, M. O. Nielsen and M. D. Webb, arXiv 2406.08880).

`python -m benchmarks.interval_coverage` measures how often these intervals hold the truth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, stdtr, stdtrit

from codedance_verl.statistics.intervals import Array, Counts, Interval, newcombe_difference, wilson_of_questions

RESAMPLES = 20_000
"""Resamples of a bootstrap: with 5 seeds the level of a percentile can be 0.001."""

Strata = npt.NDArray[np.integer[Any]]
"""Stratum of every question, integers [questions]: strata are of fixed size, so questions are drawn within them."""


@dataclass(frozen=True)
class Spread:
    """Variance of a rate, or of a difference of rates, by origin.

    Attributes:
        seeds: what other seeds would change.
        questions: what other questions would change.
        both: what seeds and questions change together, and chance of a single answer; it is in both other terms.
        degrees: degrees of freedom of `total`; 0 where nothing varies.
    """

    seeds: float
    questions: float
    both: float
    degrees: float

    @property
    def total(self) -> float:
        """Variance of the rate."""
        return max(self.seeds + self.questions - self.both, self.seeds, self.questions)


@dataclass(frozen=True)
class Estimate:
    """A rate averaged over seeds, or the difference of two, with its 95 % interval over seeds and questions."""

    value: float
    low: float
    high: float
    spread: Spread

    @property
    def p_value(self) -> float:
        """Two-sided p-value of the value being 0, by a t-test; 1 where nothing varies."""
        if self.spread.total == 0:
            return 1.0
        return float(2 * stdtr(self.spread.degrees, -abs(self.value) / math.sqrt(self.spread.total)))


def crossed_rate(
    counts: Counts, strata: Strata | None = None, seed: int = 0, resamples: int = RESAMPLES
) -> Estimate | None:
    """The rate averaged over runs; with one run its interval is over questions alone.

    Rates must be proportions. None where fewer than two questions were observed.
    """
    counts = _with_observations(counts)
    layout = _layout(counts, strata)
    if layout is None:
        return None
    spread, value = _spread([counts], layout), float(counts.rates().mean())
    resampled = resampled_rates(counts, layout, seed, resamples)
    low, high = _interval(resampled, value, spread) or wilson_of_questions(counts)
    return Estimate(value, low, high, spread)


def crossed_difference(
    after: Counts, before: Counts, strata: Strata | None = None, seed: int = 0, resamples: int = RESAMPLES
) -> Estimate | None:
    """The rate of one method less that of another, over the questions that every run of both has.

    Questions are paired, seeds are not: a seed of one method shares no more than its number with that of the other.
    """
    paired = after.observed & before.observed
    after, before = after.only(paired), before.only(paired)
    layout = _layout(after, None if strata is None else strata[paired])
    if layout is None:
        return None
    spread = _spread([after, before], layout)
    value = float(after.rates().mean() - before.rates().mean())
    # One draw of questions for both sides, a draw of seeds for each.
    new, old = (resampled_rates(side, layout, seed, resamples, number) for number, side in enumerate((after, before)))
    low, high = _interval(new - old, value, spread) or newcombe_difference(after, before)
    return Estimate(value, low, high, spread)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number, in the same order (S. Holm, Scandinavian Journal of Statistics 6, 1979)."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, largest = [1.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        # never below an earlier one: none may pass where a smaller p-value did not
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def _with_observations(counts: Counts) -> Counts:
    """Without runs and questions that were not observed at all."""
    runs = counts.denominators.sum(axis=1) > 0
    return Counts(counts.numerators[runs], counts.denominators[runs])


def _layout(counts: Counts, strata: Strata | None) -> tuple[int, ...] | None:
    """Stratum of every question as a tuple, which is hashable; None where there is nothing to resample.

    A stratum of one question has no spread of its own: then all questions are one stratum.
    """
    runs, questions = map(int, counts.numerators.shape)
    if runs == 0 or questions < 2:
        return None
    if strata is None:
        return (0,) * questions
    _, members, sizes = np.unique(strata, return_inverse=True, return_counts=True)
    if int(sizes.min()) < 2:
        return (0,) * questions
    return tuple(int(member) for member in members)


def _pseudo_values(counts: Counts) -> Array:
    """Values whose mean over questions is a run's rate, float64 [runs, questions].

    A ratio is no mean over questions; it is linearised, which changes nothing where all denominators are alike.
    """
    rates = counts.rates()[:, None]  # [runs, 1]
    totals = counts.denominators.sum(axis=1, keepdims=True)  # [runs, 1]
    return np.asarray(rates + counts.numerators.shape[1] * (counts.numerators - rates * counts.denominators) / totals)


def _spread(sides: Sequence[Counts], layout: tuple[int, ...]) -> Spread:
    """Terms of the two-way analysis of variance, questions within their strata.

    With two sides it is the difference: their questions are the same, so the differences of a question's means vary.
    """
    values, strata = [_pseudo_values(side) for side in sides], np.array(layout)
    signs = (1.0, -1.0)[: len(sides)]
    degrees = len(layout) - len(set(layout))  # of the questions
    means = sum(sign * side.mean(axis=0) for sign, side in zip(signs, values, strict=True))  # [questions]
    questions = _within(np.square(_centred(np.asarray(means)[None], strata)), strata)
    # Satterthwaite's denominator: the square of each term by its own degrees of freedom
    seeds, both, denominator = 0.0, 0.0, questions**2 / degrees
    for side in values:
        runs = side.shape[0]
        if runs > 1:  # one run says nothing about others
            of_seeds = float(side.mean(axis=1).var(ddof=1)) / runs
            left = _centred(side - side.mean(axis=0), strata)  # neither the question's nor the run's in its stratum
            of_both = _within(np.square(left), strata) / ((runs - 1) * runs)
            seeds, both = seeds + of_seeds, both + of_both
            denominator += of_seeds**2 / (runs - 1) + of_both**2 / ((runs - 1) * degrees)
    spread = Spread(seeds, questions, both, 0.0)
    return Spread(seeds, questions, both, spread.total**2 / denominator) if denominator > 0 else spread


def _centred(values: Array, strata: Strata) -> Array:
    """[runs, questions] less the mean of each run in each stratum."""
    out = values.copy()
    for stratum in np.unique(strata):
        members = strata == stratum
        out[:, members] -= values[:, members].mean(axis=1, keepdims=True)
    return out


def _within(squares: Array, strata: Strata) -> float:
    """Variance of a mean over questions from squared deviations [runs, questions], summed over the runs."""
    total = 0.0
    for stratum in np.unique(strata):
        members = strata == stratum
        size = int(members.sum())
        # Variance of this stratum's mean, by the square of its share of all questions.
        total += (size / strata.size) ** 2 * float(squares[:, members].sum()) / ((size - 1) * size)
    return total


def resampled_rates(
    counts: Counts, layout: tuple[int, ...], seed: int, resamples: int = RESAMPLES, number: int = 0
) -> Array:
    """Crossed bootstrap: the mean rate over drawn seeds and questions, float64 [resamples]; NaN where none was seen.

    Args:
        counts: of one method.
        layout: stratum of every question.
        seed: the same seed draws the same questions for every method.
        number: of the method: each draws its own seeds.
    """
    weights, runs = _question_weights(layout, seed, resamples), counts.numerators.shape[0]
    # float32 on both sides, or the product would copy the weights, [resamples, questions], as float64
    above, below = (weights @ side.T.astype(np.float32) for side in (counts.numerators, counts.denominators))
    rates = np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0)  # [resamples, runs]
    drawn = np.random.default_rng((seed, number, runs)).integers(0, runs, size=(resamples, runs))
    return np.asarray(np.take_along_axis(rates, drawn, axis=1).mean(axis=1), dtype=np.float64)


@lru_cache(maxsize=8)
def _question_weights(layout: tuple[int, ...], seed: int, resamples: int) -> npt.NDArray[np.float32]:
    """How often each question is drawn, float32 [resamples, questions]; shared by all methods of a comparison."""
    generator, strata = np.random.default_rng(seed), np.array(layout)
    weights = np.empty((resamples, strata.size), dtype=np.float32)
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        # how often drawing with replacement takes each, without holding what was drawn
        weights[:, members] = generator.multinomial(members.size, np.full(members.size, 1 / members.size), resamples)
    return weights


def _interval(resampled: Array, value: float, spread: Spread) -> Interval | None:
    """Percentiles at the levels that a normal bootstrap needs for value +- t * error; None where nothing varies."""
    usable = resampled[~np.isnan(resampled)]
    deviation = float(usable.std()) if usable.size else 0.0
    if spread.total == 0 or deviation == 0:
        return None
    half_width = float(stdtrit(spread.degrees, 0.975)) * math.sqrt(spread.total)
    level = float(ndtr(-half_width / deviation))
    low, high = np.quantile(usable, [level, 1 - level])
    return Interval(min(float(low), value), max(float(high), value))
