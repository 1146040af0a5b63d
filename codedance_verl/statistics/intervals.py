"""95 % intervals: Wilson's for a proportion of independent questions, a cluster bootstrap for everything else."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Z_95 = 1.959963984540054
"""Two-sided 95 % quantile of the normal distribution."""

RESAMPLES = 4_000
_CHUNK_ELEMENTS = 2_000_000
"""Resampled indices held at once, so that memory does not grow with the benchmark."""

_NO_WIDTH = 1e-9
"""Resamples that differ by less are alike but for rounding."""

Array = npt.NDArray[np.float64]


class Interval(NamedTuple):
    low: float
    high: float


@dataclass(frozen=True)
class Counts:
    """Numerators and denominators of a rate, per run and question.

    Both arrays are float64 [runs, questions]; a question that a run has no observation of has denominator 0.
    Rows are seeds of one method, columns the same question in each.
    """

    numerators: Array
    denominators: Array

    def rates(self) -> Array:
        """The rate of each run, float64 [runs]; NaN where a run has no observation."""
        return _ratio(self.numerators.sum(axis=1), self.denominators.sum(axis=1))

    def only(self, questions: npt.NDArray[np.bool_]) -> Counts:
        """Columns chosen by a boolean mask [questions]."""
        return Counts(self.numerators[:, questions], self.denominators[:, questions])

    @property
    def observed(self) -> npt.NDArray[np.bool_]:
        """Questions that every run has an observation of, bool [questions]."""
        return np.asarray((self.denominators > 0).all(axis=0))


def wilson(successes: float, trials: float, z: float = Z_95) -> Interval:
    """Wilson's score interval of a proportion (E. B. Wilson, JASA 22, 1927). `trials` must be positive."""
    share = successes / trials
    # Centre and half width of the score interval, both still to be divided by 1 + z^2/n.
    centre = share + z * z / (2 * trials)
    spread = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    # rounding must not leave the share outside where it is 0 or 1
    low, high = max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)
    return Interval(min(low, share), max(high, share))


def mean_rate_interval(counts: Counts, *, proportion: bool, seed: int = 0) -> Interval | None:
    """Interval of the rate averaged over runs.

    One run with at most one observation a question gives Wilson's interval where the rate is a proportion. Otherwise
    questions are resampled, the runs of a question kept together. Where every resample gives the same proportion
    (all right, all wrong), a bootstrap would claim certainty; then Wilson's interval for as many trials as there are
    questions stands in. None where there are fewer than two questions to resample.
    """
    # Questions with at least one observation in any run: the units that are resampled.
    seen = int((counts.denominators > 0).any(axis=0).sum())
    if seen == 0:
        return None
    single = counts.denominators.shape[0] == 1 and float(counts.denominators.max()) <= 1
    if proportion and single:
        return wilson(float(counts.numerators.sum()), float(counts.denominators.sum()))
    value = float(np.nanmean(counts.rates()))
    interval = _percentiles(_resample([counts], seed)[0].mean(axis=0), value) if seen > 1 else None
    if proportion and (interval is None or interval.low == interval.high):
        return wilson(value * seen, seen)
    return interval


def paired_gain(after: Counts, before: Counts, seed: int = 0) -> tuple[float, Interval | None, int] | None:
    """Difference of the mean rates, over the questions that every run of both has; its interval; how many those are.

    Questions are resampled, and the same resample is used for both sides. Where the difference is alike on all
    questions, a bootstrap would claim certainty; then `newcombe_difference` stands in. Rates must be proportions. None
    where no question is paired.
    """
    paired = after.observed & before.observed
    questions = int(paired.sum())
    if questions == 0:
        return None
    # The difference is over the same questions on both sides, so that their difficulty cancels.
    after, before = after.only(paired), before.only(paired)
    value = float(after.rates().mean() - before.rates().mean())
    # every resample of one question is that question
    if questions == 1:
        return value, None, questions
    new, old = (rates.mean(axis=0) for rates in _resample([after, before], seed))
    interval = _percentiles(new - old, value)
    if interval is not None and interval.high - interval.low < _NO_WIDTH:
        interval = newcombe_difference(after, before)
    return value, interval, questions


def wilson_of_questions(counts: Counts) -> Interval:
    """Wilson's interval of the mean rate for as many trials as there are questions."""
    return wilson(float(counts.rates().mean()) * counts.numerators.shape[1], counts.numerators.shape[1])


def newcombe_difference(after: Counts, before: Counts) -> Interval:
    """Interval from those of both sides (R. G. Newcombe, Statistics in Medicine 17, 1998, method 10)."""
    new, old = wilson_of_questions(after), wilson_of_questions(before)
    mine, other = float(after.rates().mean()), float(before.rates().mean())
    return Interval(
        mine - other - math.hypot(mine - new.low, old.high - other),
        mine - other + math.hypot(new.high - mine, other - old.low),
    )


def product_interval(first: Counts, second: Counts, seed: int = 0) -> Interval | None:
    """Interval of the product of two rates on different questions, run by run, averaged over the runs.

    Questions of both are resampled independently. None where a rate is alike on all questions, or not known.
    """
    # a seed for each: the same one would draw alike for both, which are independent
    sides = [_resample([side], seed + number)[0] for number, side in enumerate((first, second))]
    # a rate without spread would count as certain
    if any(bool((np.ptp(rates, axis=1) < _NO_WIDTH).all()) for rates in sides):
        return None
    value = float((first.rates() * second.rates()).mean())
    return _percentiles((sides[0] * sides[1]).mean(axis=0), value)


def _resample(sides: list[Counts], seed: int) -> list[Array]:
    """Rate of every run in every resample, float64 [runs, RESAMPLES], for each side; all share their resamples."""
    generator = np.random.default_rng(seed)
    questions = sides[0].numerators.shape[1]
    size = max(1, _CHUNK_ELEMENTS // questions)  # resamples at a time, to bound the memory of [size, questions]
    chunks: list[list[Array]] = [[] for _ in sides]
    for start in range(0, RESAMPLES, size):
        drawn = generator.integers(0, questions, size=(min(size, RESAMPLES - start), questions))
        for side, out in zip(sides, chunks, strict=True):
            # One entry per run of this side, each float64 [resamples].
            totals = [
                # [resamples, questions] summed over the questions drawn: one rate per resample.
                _ratio(numerators[drawn].sum(axis=1), denominators[drawn].sum(axis=1))
                for numerators, denominators in zip(side.numerators, side.denominators, strict=True)
            ]
            out.append(np.stack(totals))
    return [np.concatenate(out, axis=1) for out in chunks]


def _percentiles(values: Array, estimate: float) -> Interval | None:
    """The middle 95 % of resampled values, stretched to hold the estimate where very few questions leave it outside.

    Resamples without any observation are left out.
    """
    usable = values[~np.isnan(values)]
    if usable.size == 0:
        return None
    low, high = np.quantile(usable, [0.025, 0.975])
    return Interval(min(float(low), estimate), max(float(high), estimate))


def _ratio(numerators: Array, denominators: Array) -> Array:
    rates: Array = np.full(np.shape(numerators), np.nan)  # stays NaN where nothing was observed
    np.divide(numerators, denominators, out=rates, where=denominators > 0)
    return rates
