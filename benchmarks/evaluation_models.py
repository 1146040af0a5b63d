"""Models of answers to benchmarks with known true figures, for `evaluation_statistics`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from codedance_verl.statistics.clusters import ClusterSums
from codedance_verl.statistics.comparison import Side
from codedance_verl.statistics.intervals import Array

SHAPES: Mapping[str, npt.NDArray[np.int64]] = {
    "V*, 191 alone": np.ones(191, dtype=np.int64),
    "HR-Bench, 200 of 4": np.full(200, 4),
    "MathVerse, 788 of 5": np.full(788, 5),
    "WeMath, 525 of 3 or 4": np.repeat([3, 4], [360, 165]),
    "75 of 4": np.full(75, 4),
    "1,000 of 4": np.full(1_000, 4),
    "few: 40 of 4": np.full(40, 4),
    "few: 20 of 4": np.full(20, 4),
}
"""Items of each cluster, by benchmark."""


def right_answers(
    generator: np.random.Generator, sizes: npt.NDArray[np.int64], accuracy: float, alike: float, draws: int
) -> Array:
    """Right answers of each cluster, float64 [draws, clusters]: beta-binomial.

    `alike` is the correlation between two answers of a cluster, in [0, 1).
    """
    chances: Array = np.full((draws, sizes.size), accuracy)
    if alike:
        scale = 1 / alike - 1
        chances = generator.beta(accuracy * scale, (1 - accuracy) * scale, (draws, sizes.size))
    return np.asarray(generator.binomial(sizes, chances), dtype=np.float64)


_STEPS = np.repeat([2, 3], [360, 165])
"""Steps of WeMath's composites."""
_ABILITIES = 1.2
"""Standard deviation between composites, on the logit scale."""

_Classes = tuple[Array, Array, Array]
"""All steps right, any step right, the whole right, as 0 and 1 or as probabilities; float64 [composites] each."""


def _strict_score(classes: _Classes) -> tuple[Array, Array]:
    every, _, whole = classes
    return every * whole + 0.5 * every * (1 - whole), np.ones_like(whole)


def _loose_score(classes: _Classes) -> tuple[Array, Array]:
    every, some, whole = classes
    return some * whole + 0.5 * every * (1 - whole), np.ones_like(whole)


def _memorised(classes: _Classes) -> tuple[Array, Array]:
    every, _, whole = classes
    return (1 - every) * whole, whole


def _all_right(classes: _Classes) -> tuple[Array, Array]:
    every, _, whole = classes
    return every * whole, np.ones_like(whole)


COMPOSITES: Mapping[str, Callable[[_Classes], tuple[Array, Array]]] = {
    "WeMath, strict score": _strict_score,
    "WeMath, loose score": _loose_score,
    "WeMath, rote memorisation": _memorised,
    "WeMath, all right": _all_right,
}


def composite_sums(generator: np.random.Generator, figure: str, ability: float) -> ClusterSums:
    """One experiment: 525 composites, answers of each as able as each other, the whole harder than its steps."""
    abilities = generator.normal(ability, _ABILITIES, _STEPS.size)
    right = generator.binomial(_STEPS, expit(abilities))
    whole = (generator.random(_STEPS.size) < expit(abilities - 1)).astype(np.float64)
    every, some = np.asarray(right == _STEPS, dtype=np.float64), np.asarray(right > 0, dtype=np.float64)
    return ClusterSums(*COMPOSITES[figure]((every, some, whole)))


def composite_truth(figure: str, ability: float) -> float:
    """The true figure, by quadrature over abilities."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(120)
    weights = weights / weights.sum()
    above = below = 0.0
    for steps in _STEPS.tolist():
        chance, whole = expit(ability + _ABILITIES * nodes), expit(ability + _ABILITIES * nodes - 1)
        terms = COMPOSITES[figure]((chance**steps, 1 - (1 - chance) ** steps, whole))
        above, below = above + float(weights @ terms[0]), below + float(weights @ terms[1])
    return above / below


@dataclass(frozen=True)
class Compared:
    """Two models on a benchmark.

    Attributes:
        clusters, size: clusters of so many items.
        discordance: share of items that one model alone gets right.
        moved: share of clusters whose items all come out alike; those of the others are independent.
        skewed: in the null, one model is far ahead in few clusters, the other a little in many.
    """

    clusters: int
    size: int
    discordance: float
    moved: float
    skewed: bool = False

    def outcomes(self, generator: np.random.Generator, difference: float, draws: int) -> npt.NDArray[np.int8]:
        """1 where A alone is right, -1 where B alone is, else 0; int8 [draws, clusters, size]."""
        if self.skewed:
            return self._skewed(generator, difference, draws)
        shape = (draws, self.clusters)
        luck = generator.random((*shape, self.size), dtype=np.float32)
        together = generator.random((*shape, 1), dtype=np.float32) < self.moved
        luck = np.where(together, luck[..., :1], luck)
        gained = (self.discordance + difference) / 2
        return np.where(luck < gained, 1, np.where(luck < self.discordance, -1, 0)).astype(np.int8)

    def _skewed(self, generator: np.random.Generator, difference: float, draws: int) -> npt.NDArray[np.int8]:
        """A wins 8 % of the clusters whole; B wins an item in as many as make up for that, less `difference`."""
        luck = generator.random((draws, self.clusters))
        ahead, behind = 0.08, (0.08 - difference) * self.size
        found = np.zeros((draws, self.clusters, self.size), dtype=np.int8)
        found[luck < ahead] = 1
        found[(luck >= ahead) & (luck < ahead + behind), 0] = -1
        return found

    def differences(self, generator: np.random.Generator, difference: float, draws: int) -> Array:
        """A less B in each cluster, float64 [draws, clusters]."""
        parts = [
            self.outcomes(generator, difference, min(200, draws - start)).sum(axis=2)
            for start in range(0, draws, 200)  # at a time, to bound the memory
        ]
        return np.asarray(np.concatenate(parts), dtype=np.float64)


COMPARED: Mapping[str, Compared] = {
    "V*, 191 alone": Compared(191, 1, 0.13, 0.0),
    "MathVision, 3,040 alone": Compared(3_040, 1, 0.2, 0.0),
    "HR-Bench, 200 of 4": Compared(200, 4, 0.18, 0.5),
    "MathVerse, 788 of 5": Compared(788, 5, 0.2, 0.5),
    "skewed, 200 of 4": Compared(200, 4, 0.16, 0.0, skewed=True),
}


def paired_sides(case: Compared, generator: np.random.Generator, difference: float) -> tuple[Side, Side]:
    """One experiment as two sides of a comparison; where both answers are alike, half of them are right."""
    outcome = case.outcomes(generator, difference, 1)[0]
    alike = generator.random(outcome.shape) < 0.5
    right_a, right_b = (outcome > 0) | ((outcome == 0) & alike), (outcome < 0) | ((outcome == 0) & alike)

    def side(model: str, right: npt.NDArray[np.bool_]) -> Side:
        sums = ClusterSums(right.sum(axis=1).astype(np.float64), np.full(case.clusters, float(case.size)))
        return Side(model, sums, sums, sums, 0)

    return side("A", right_a), side("B", right_b)
