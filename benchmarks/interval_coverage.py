"""Coverage of 95 % intervals over seeds and questions: `python -m benchmarks.interval_coverage`.

Results of runs are made up from models whose true rate can be computed; then it is counted how often an interval holds
that rate. The models are like the comparison of methods on the demo: 256 questions of four kinds, or 128 of two.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit, ndtr, stdtrit

from codedance_verl.statistics.crossed_intervals import Estimate, Strata, crossed_rate, resampled_rates
from codedance_verl.statistics.intervals import Array, Counts, Interval, mean_rate_interval, wilson

KIND_QUESTIONS = 64
_TRUTH_SEEDS = 400
_RESAMPLES = 4_000
"""Fewer than a comparison takes, for speed; percentiles near 0.001 are then a little uncertain."""


@dataclass(frozen=True)
class Population:
    """Probabilities of right answers on the logit scale: kinds, deviations of seeds and of questions.

    Attributes:
        kinds: mean of each kind.
        seeds: standard deviation between seeds, the same on all kinds.
        questions: standard deviation between questions.
        found: the last kind is solved by a seed (mean 2.5) with this probability, else hardly at all (-1.5).
    """

    kinds: tuple[float, ...]
    seeds: float
    questions: float = 1.5
    found: float | None = None

    @property
    def strata(self) -> Strata:
        """Kind of every question."""
        return np.repeat(np.arange(len(self.kinds)), KIND_QUESTIONS)

    def draw(self, generator: np.random.Generator, seeds: int, batch: int = 1) -> Array:
        """Right answers of `batch` experiments, float64 [batch, seeds, questions] of 0 and 1."""
        kinds = np.tile(np.array(self.kinds), (batch, seeds, 1))
        if self.found is not None:
            kinds[..., -1] = np.where(generator.random((batch, seeds)) < self.found, 2.5, -1.5)
        of_seeds = generator.normal(0, self.seeds, (batch, seeds, 1))
        of_questions = generator.normal(0, self.questions, (batch, 1, self.strata.size))
        right = expit(kinds[..., self.strata] + of_seeds + of_questions)
        return np.asarray(generator.random(right.shape) < right, dtype=np.float64)

    def rate(self) -> float:
        """The true rate."""
        return float(self.draw(np.random.default_rng(99), _TRUTH_SEEDS, 40).mean())


POPULATIONS: Mapping[str, Population] = {
    "seeds alike": Population((2.2, 1.4, 1.1, 0.0), 0.0),
    "seeds differ by 5 points": Population((2.2, 1.4, 1.1, 0.0), 0.3),
    "seeds differ by 12 points": Population((2.2, 1.4, 1.1, 0.0), 0.8),
    "a kind found by half of the seeds": Population((2.2, 1.4, 1.1, 0.0), 0.3, found=0.5),
    "that kind alone": Population((0.0,), 0.0, 1.0, found=0.6),
    "greedy, answers nearly fixed": Population((1.0, 1.0, 1.0, 1.0), 0.5, 6.0),
    "needless calls, 30 %": Population((-1.0, -1.0), 0.8, 0.5),
    "needless calls, 7 %": Population((-3.0, -3.0), 1.0, 0.5),
    "needless calls, 2 %": Population((-4.0, -4.0), 0.5, 0.5),
}

Method = Callable[[Counts, Strata], Interval]


def calibrated(counts: Counts, strata: Strata) -> Interval:
    """The crossed bootstrap of this project."""
    return _ends(crossed_rate(counts, strata, resamples=_RESAMPLES))


def percentile(counts: Counts, strata: Strata) -> Interval:
    """The crossed bootstrap, plain percentiles."""
    return _percentiles(counts, strata, 0.025)


def expanded(counts: Counts, strata: Strata) -> Interval:
    """The crossed bootstrap, percentiles moved for S-1 degrees of freedom, however little the seeds differ."""
    seeds = counts.numerators.shape[0]
    return _percentiles(counts, strata, float(ndtr(-stdtrit(seeds - 1, 0.975) * (seeds / (seeds - 1)) ** 0.5)))


def nested(counts: Counts, strata: Strata) -> Interval:
    """Seeds, and in every drawn seed questions of its own: as if no two seeds had answered the same questions."""
    generator, seeds = np.random.default_rng(0), counts.numerators.shape[0]
    drawn = generator.integers(0, seeds, (_RESAMPLES // 2, seeds))
    right = np.zeros(drawn.shape)
    for stratum in np.unique(strata):
        answers = counts.numerators[:, strata == stratum]
        # questions drawn from 0 and 1 with replacement: a binomial number of them is right
        right += generator.binomial(answers.shape[1], answers.mean(axis=1)[drawn])
    low, high = np.quantile(right.mean(axis=1) / strata.size, [0.025, 0.975])
    return Interval(float(low), float(high))


def t_interval(counts: Counts, strata: Strata) -> Interval:
    """value +- t * error of the analysis of variance, on the logit scale."""
    estimate = crossed_rate(counts, strata, resamples=2)
    assert estimate is not None
    value, spread = estimate.value, estimate.spread
    if not 0 < value < 1 or spread.total == 0:
        return wilson(value * strata.size, strata.size)
    half = float(stdtrit(spread.degrees, 0.975)) * spread.total**0.5 / (value * (1 - value))
    return Interval(float(expit(logit(value) - half)), float(expit(logit(value) + half)))


def questions_only(counts: Counts, strata: Strata) -> Interval:
    """The interval of `report.json`, which keeps the seeds as they are."""
    found = mean_rate_interval(counts, proportion=True)
    assert found is not None
    return found


METHODS: Mapping[str, Method] = {
    "questions only": questions_only,
    "nested, percentiles": nested,
    "crossed, percentiles": percentile,
    "crossed, S-1 degrees": expanded,
    "crossed, calibrated": calibrated,
    "t, logit": t_interval,
}


def coverage(population: Population, methods: Mapping[str, Method], seeds: int, draws: int) -> dict[str, float]:
    """Share of `draws` experiments of so many seeds in which each method's interval holds the true rate."""
    generator, truth = np.random.default_rng(seeds), population.rate()
    held = dict.fromkeys(methods, 0)
    for _ in range(draws):
        right = population.draw(generator, seeds)[0]
        counts = Counts(right, np.ones_like(right))
        for name, method in methods.items():
            low, high = method(counts, population.strata)
            held[name] += low <= truth <= high
    return {name: number / draws for name, number in held.items()}


def _percentiles(counts: Counts, strata: Strata, level: float) -> Interval:
    layout = tuple(int(stratum) for stratum in strata)
    resampled = resampled_rates(counts, layout, 0, _RESAMPLES)
    low, high = np.quantile(resampled, [level, 1 - level])
    return Interval(float(low), float(high)) if low < high else wilson(float(low) * strata.size, strata.size)


def _ends(estimate: Estimate | None) -> Interval:
    assert estimate is not None
    return Interval(estimate.low, estimate.high)


def main() -> None:
    """Prints a table of coverages in percent."""
    parser = argparse.ArgumentParser(description="Measures the coverage of 95 % intervals over seeds and questions.")
    parser.add_argument("--seeds", type=int, default=5, help="seeds of an experiment (default: 5)")
    parser.add_argument("--draws", type=int, default=400, help="experiments a population (default: 400)")
    options = parser.parse_args()
    print(f"| {options.seeds} seeds, {options.draws} draws | {' | '.join(METHODS)} |\n|{'---|' * (len(METHODS) + 1)}")
    away = dict.fromkeys(METHODS, 0.0)
    for name, population in POPULATIONS.items():
        found = coverage(population, METHODS, options.seeds, options.draws)
        away = {method: away[method] + abs(found[method] - 0.95) / len(POPULATIONS) for method in METHODS}
        print(f"| {name} | {' | '.join(f'{100 * found[method]:.1f}' for method in METHODS)} |", flush=True)
    print(f"| mean distance from 95 | {' | '.join(f'{100 * away[method]:.1f}' for method in METHODS)} |")


if __name__ == "__main__":
    main()
