"""Power: the smallest difference between two models that a benchmark of a given size shows.

Two models on the same questions: the power of McNemar's exact test, summed over all numbers of questions that one of
them alone gets right. Two models on different questions: the normal approximation for two proportions. Clusters count
as the number of independent questions that would vary as much (items by design effect).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.special import bdtr, gammaln, ndtr, ndtri

from codedance_verl.errors import UserError
from codedance_verl.statistics.intervals import Array

POWER = 0.8
LEVEL = 0.05

_BISECTIONS = 30
_REST = 1e-9
"""Probability of numbers of discordant questions that are left out on either side."""


@dataclass(frozen=True)
class PowerLine:
    """Smallest difference that is seen.

    Attributes:
        items: of the benchmark; of each side where they are not paired.
        smallest: difference of the two accuracies, in (0, 1]; None where even the largest is missed too often.
        paired: both models answer the same items.
        discordance: share of items that one model alone gets right; None where they are not paired.
        design_effect: variance of clusters by that of as many independent items.
        power: share of comparisons that see a difference of that size.
        level: p-value under which a difference counts as seen.
    """

    items: int
    smallest: float | None
    paired: bool
    discordance: float | None
    design_effect: float
    power: float
    level: float

    @property
    def sentence(self) -> str:
        """The line in plain words, in points of percent."""
        given = ["paired" if self.paired else "not paired"]
        if self.discordance is not None:
            given.append(f"one model alone right on {100 * self.discordance:.1f} %")
        if not math.isclose(self.design_effect, 1, abs_tol=0.02):
            given.append(f"design effect {self.design_effect:.2f}")
        given.append(f"power {100 * self.power:.0f} %, level {100 * self.level:.0f} %")
        what = "no difference" if self.smallest is None else f"a difference under {100 * self.smallest:.1f} points"
        verb = "can" if self.smallest is None else "cannot"
        return f"{self.items:,} items: {what} {verb} be seen ({'; '.join(given)})."


def assumed_discordance(accuracy: float, correlation: float = 0.5) -> float:
    """Share of items that one of two models alone gets right, where both have that accuracy.

    Args:
        accuracy: in [0, 1].
        correlation: of right answers between the models; 0 for independent ones, 1 for the same answers.
    """
    return 2 * accuracy * (1 - accuracy) * (1 - correlation)


def smallest_paired(
    items: int, discordance: float, *, design_effect: float = 1.0, power: float = POWER, level: float = LEVEL
) -> PowerLine:
    """Smallest difference that two models on the same items show. Raises UserError for sizes that cannot be."""
    pairs = _effective(items, design_effect)
    if not 0 < discordance <= 1:
        raise UserError(f"discordance {discordance}: a share of items over 0 and at most 1 is needed")

    def found(difference: float) -> float:
        return paired_power(pairs, discordance, difference, level)

    smallest = _first_with(power, found, discordance)
    return PowerLine(items, smallest, True, discordance, design_effect, power, level)


def smallest_unpaired(
    items: int, accuracy: float, *, design_effect: float = 1.0, power: float = POWER, level: float = LEVEL
) -> PowerLine:
    """Smallest difference from a model of that accuracy, towards 1/2, that one on as many other items shows.

    Raises UserError for sizes that cannot be.
    """
    answers = _effective(items, design_effect)
    towards = 1.0 if accuracy <= 0.5 else -1.0

    def found(difference: float) -> float:
        return unpaired_power(answers, accuracy, accuracy + towards * difference, level)

    # all the room that there is on that side
    smallest = _first_with(power, found, max(accuracy, 1 - accuracy))
    return PowerLine(items, smallest, False, None, design_effect, power, level)


def paired_power(pairs: int, discordance: float, difference: float, level: float = LEVEL) -> float:
    """Share of comparisons in which McNemar's exact test has a p-value of at most `level`.

    Args:
        pairs: items that both models answer.
        discordance: share that one model alone gets right.
        difference: of the accuracies, in [-discordance, discordance].
    """
    numbers, chances, most = _outcomes(pairs, discordance, level)
    # chance that a discordant pair goes against the better model; rounding may leave [0, 1]
    losing = min(1.0, max(0.0, (discordance - difference) / (2 * discordance)))
    seen = _at_most(most, numbers, losing) + _at_most(most, numbers, 1 - losing)
    return float((chances * seen).sum())


def unpaired_power(answers: int, first: float, second: float, level: float = LEVEL) -> float:
    """Share of comparisons of two proportions of so many answers each that a two-sided z-test sees."""
    middle, gap = (first + second) / 2, abs(first - second)
    alike = math.sqrt(2 * middle * (1 - middle) / answers)
    apart = math.sqrt((first * (1 - first) + second * (1 - second)) / answers)
    if apart == 0:
        return float(gap > 0)
    bound = float(ndtri(1 - level / 2)) * alike
    return float(ndtr((gap - bound) / apart) + ndtr((-gap - bound) / apart))


def _effective(items: int, design_effect: float) -> int:
    if items < 1 or not design_effect > 0:
        raise UserError(f"{items} items, design effect {design_effect}: both must be positive")
    # rounded down, so that no more power is promised than there is
    return max(1, int(items / design_effect))


def _first_with(power: float, found: Callable[[float], float], largest: float) -> float | None:
    """Smallest difference up to `largest` that is found with that power; None where the largest is not."""
    if found(largest) < power:
        return None
    low, high = 0.0, largest
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if found(middle) < power:
            low = middle
        else:
            high = middle
    return high


@lru_cache(maxsize=8)
def _outcomes(pairs: int, discordance: float, level: float) -> tuple[Array, Array, Array]:
    """Numbers of discordant items, their probabilities, and the most on the losing side with which each is seen."""
    numbers = _likely(pairs, discordance)
    return numbers, _binomial(numbers, pairs, discordance), _critical(numbers, level)


def _likely(pairs: int, discordance: float) -> Array:
    """Numbers of discordant items that occur, float64: but for 1e-9, all."""
    reach = float(-ndtri(_REST / 2)) * math.sqrt(pairs * discordance * (1 - discordance)) + 10
    low, high = math.floor(pairs * discordance - reach), math.ceil(pairs * discordance + reach)
    return np.arange(max(0, low), min(pairs, high) + 1, dtype=np.float64)


def _critical(numbers: Array, level: float) -> Array:
    """Most answers on the losing side with which McNemar's exact p-value is at most `level`; -1 where none has it."""
    most = np.full(numbers.shape, -1.0)
    # Twice the lower tail of fair coins, number by number; both ends move in step, so a few rounds do.
    guess = np.floor(numbers / 2 - float(ndtri(1 - level / 2)) * np.sqrt(numbers) / 2) - 4
    for step in range(12):
        candidate = guess + step
        fits = (candidate >= 0) & (2 * _at_most(candidate, numbers, 0.5) <= level)
        most = np.where(fits, candidate, most)
    return most


def _at_most(most: Array, numbers: Array, chance: float) -> Array:
    """Probability of at most so many of `numbers` at that chance each; 0 where `most` is negative."""
    possible = most >= 0
    chances = bdtr(np.where(possible, most, 0.0), numbers.astype(np.int64), chance)
    return np.asarray(np.where(possible, chances, 0.0))


def _binomial(numbers: Array, trials: int, chance: float) -> Array:
    """Probability of each number of successes."""
    # log1p(-1) has no value
    if chance == 1:
        return np.asarray(numbers == trials, dtype=np.float64)
    logs = gammaln(trials + 1) - gammaln(numbers + 1) - gammaln(trials - numbers + 1)
    return np.asarray(np.exp(logs + numbers * math.log(chance) + (trials - numbers) * math.log1p(-chance)))
