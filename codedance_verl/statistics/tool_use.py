"""Calibration of tool use against difficulty, and how accuracy grows with turns; both from counts by question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from codedance_verl.errors import UserError
from codedance_verl.statistics.clusters import ClusterSums, Rate, cluster_rate, sums_by_cluster
from codedance_verl.statistics.differences import cluster_differences, difference_interval
from codedance_verl.statistics.intervals import Array, Interval

QUARTERS = (0.0, 0.25, 0.5, 0.75, 1.0)
_ROWS = 512
"""Questions compared with all others at once."""


@dataclass(frozen=True)
class UseCounts:
    """Answers of a model to the same questions without tools and with them, float64 [questions] each.

    Attributes:
        right_without: right answers without tools.
        answers_without: all answers without tools, 1 or more.
        used: answers with tools at hand in which a call ran.
        answers: all answers with tools at hand, 1 or more.
        clusters: name of each question's cluster; None where each is one of its own.
    """

    right_without: Array
    answers_without: Array
    used: Array
    answers: Array
    clusters: tuple[str, ...] | None = None

    @property
    def difficulty(self) -> Array:
        """Share of wrong answers without tools, float64 [questions]."""
        return np.asarray(1 - self.right_without / self.answers_without)


@dataclass(frozen=True)
class UseBin:
    """Questions of one range of difficulty, its upper end counted only in the last: how often tools are used."""

    low: float
    high: float
    questions: int
    use: Rate | None


@dataclass(frozen=True)
class UseCalibration:
    """Agreement of the use of tools with the need of them.

    Attributes:
        bins: use by difficulty.
        needed: use, each question weighted by its share of wrong answers without tools; None where there is none.
        not_needed: use, weighted by the share of right answers without tools.
        ranking: of two questions of different difficulty, how often the harder one has the higher use (alike: half);
            1 is perfect, 0.5 is blind. None where all are of one difficulty.
    """

    bins: tuple[UseBin, ...]
    needed: Rate | None
    not_needed: Rate | None
    ranking: float | None


def use_calibration(counts: UseCounts, edges: Sequence[float] = QUARTERS) -> UseCalibration:
    """Use of tools against difficulty, which is measured without tools.

    With few answers without tools difficulty is uncertain, and `needed`, `not_needed` and `ranking` come out nearer to
    each other (to 0.5) than they are. The answers with tools must be others than those that measure difficulty.
    """
    difficulty, names = counts.difficulty, None if counts.clusters is None else list(counts.clusters)
    use = counts.used / counts.answers

    def weighted(weights: Array) -> Rate | None:
        return cluster_rate(sums_by_cluster(use * weights, weights, names))

    bins = []
    for low, high in pairwise(edges):
        inside = (difficulty >= low) & ((difficulty < high) | (high == edges[-1]) & (difficulty <= high))
        bins.append(UseBin(low, high, int(inside.sum()), weighted(inside.astype(np.float64))))
    return UseCalibration(tuple(bins), weighted(difficulty), weighted(1 - difficulty), _ranking(difficulty, use))


def _ranking(difficulty: Array, use: Array) -> float | None:
    pairs, right = 0.0, 0.0
    for start in range(0, difficulty.size, _ROWS):
        rows = slice(start, start + _ROWS)
        harder = difficulty[rows, None] > difficulty[None, :]  # [rows, questions]
        gap = np.sign(use[rows, None] - use[None, :])
        pairs += float(harder.sum())
        right += float(((gap + 1) / 2)[harder].sum())
    return right / pairs if pairs else None


@dataclass(frozen=True)
class TurnPoint:
    """Share of questions answered within so many turns, and answered right, of all that were asked."""

    turns: int
    answered: float
    right: Rate


def right_within(
    turns: Sequence[int | None], right: Array, clusters: Sequence[str] | None = None
) -> tuple[TurnPoint, ...]:
    """Right answers by the turn in which they came, summed up: one run, a point for each number of turns.

    Args:
        turns: of each question's answer, 1 or more; None where it has none.
        right: 1 where the answer is right, float64 [questions].
        clusters: name of each question's cluster.
    """
    # an answer that never came is within no number of turns
    taken = np.array([np.inf if number is None else number for number in turns])
    names, ones = None if clusters is None else list(clusters), np.ones(taken.size)
    points = []
    for number in range(1, int(max(taken[np.isfinite(taken)], default=0)) + 1):
        within = taken <= number
        rate = cluster_rate(sums_by_cluster(right * within, ones, names))
        if rate is not None:
            points.append(TurnPoint(number, float(within.mean()), rate))
    return tuple(points)


@dataclass(frozen=True)
class LimitPoint:
    """Accuracy under a limit of turns, and what it gained over the next smaller one on the same questions."""

    max_turns: int
    accuracy: Rate
    gain: float | None
    gain_interval: Interval | None


def accuracy_by_limit(runs: Mapping[int, ClusterSums]) -> tuple[LimitPoint, ...]:
    """Accuracy of one model by `max_turns`; clusters are the same, in the same order, in each run.

    Raises UserError where runs do not count the same questions, or fewer than two.
    """
    points: list[LimitPoint] = []
    for limit in sorted(runs):
        rate = cluster_rate(runs[limit])
        if rate is None:
            raise UserError(f"nothing was measured with max_turns={limit}")
        sides = cluster_differences(runs[limit], runs[points[-1].max_turns]) if points else None
        interval = None if sides is None else difference_interval(sides)
        points.append(LimitPoint(limit, rate, None if sides is None else sides.value, interval))
    return tuple(points)
