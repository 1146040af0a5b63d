"""Effect of tools on a benchmark: a run with tools beside runs of the same model under a control.

Terms are those of `docs/evaluation.md`: of one question let w be 1 where the answer with tools is right and o where
that without tools is; then gain is (1 - o) w, harm o (1 - w), and w = o + gain - harm. Of several samples the shares
stand for w and o, as samples of the two runs are drawn apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from codedance_verl.harness.estimate import Estimate
from codedance_verl.statistics.clusters import ClusterSums, cluster_rate, sums_by_cluster
from codedance_verl.statistics.differences import cluster_differences, difference_interval
from codedance_verl.statistics.intervals import Array
from codedance_verl.statistics.tool_use import UseCounts, accuracy_by_limit, right_within, use_calibration


@dataclass(frozen=True)
class Answered:
    """Sample of an item, as far as the effect of tools goes.

    Attributes:
        key: key of the item (`Item.key`).
        cluster: cluster of the item.
        value: score, 0 to 1; None where it was not measured.
        calls: cells that ran.
        turns: turns of the model; None where it is not known.
    """

    key: str
    cluster: str
    value: float | None
    calls: int = 0
    turns: int | None = None


class ToolEffect(msgspec.Struct, frozen=True):
    """Effect of tools, over items that both runs measured.

    Attributes:
        items: how many these are; `left_out` are the others of either run.
        accuracy, accuracy_without: right with tools at hand, and without.
        gain: wrong without, right with them; `harm`: right without, wrong with them.
        gain_by_call, harm_by_call: parts of these where a call ran.
        difference: accuracy less accuracy without, which is gain less harm.
    """

    items: int
    left_out: int
    accuracy: Estimate
    accuracy_without: Estimate
    gain: Estimate
    harm: Estimate
    gain_by_call: Estimate
    harm_by_call: Estimate
    difference: Estimate


class ControlEffect(msgspec.Struct, frozen=True):
    """Run under a control beside the run without one, over items that both measured.

    Attributes:
        control: name of the control.
        items: how many these are; `left_out` are the others of either run.
        accuracy: of the run without a control; `controlled`: under the control.
        difference: the latter less the former.
        use, use_controlled: share of answers in which a call ran.
    """

    control: str
    items: int
    left_out: int
    accuracy: Estimate
    controlled: Estimate
    difference: Estimate
    use: Estimate
    use_controlled: Estimate


class UseOfTools(msgspec.Struct, frozen=True):
    """Use of tools among items whose share of wrong answers without tools lies in a range."""

    low: float
    high: float
    items: int
    use: Estimate


class Calibration(msgspec.Struct, frozen=True):
    """Agreement of the use of tools with the need of them (`statistics.tool_use.UseCalibration`).

    Attributes:
        bins: use by difficulty.
        needed, not_needed: use, items weighted by their share of wrong and of right answers without tools.
        ranking: of two items of different difficulty, how often the harder one has the higher use; 0.5 is blind. None
            where all are of one difficulty.
    """

    bins: tuple[UseOfTools, ...]
    needed: Estimate
    not_needed: Estimate
    ranking: float | None


class TurnsPoint(msgspec.Struct, frozen=True):
    """Share of all items that were answered within so many turns, and right."""

    turns: int
    answered: float
    right: Estimate


class LimitOfTurns(msgspec.Struct, frozen=True):
    """Accuracy of a run with a limit of turns, and its gain over the next smaller limit on the same items."""

    max_turns: int
    accuracy: Estimate
    gain: Estimate


@dataclass(frozen=True)
class _Sums:
    """Means over samples of the items that are compared, float64 [items] each, in one order for all runs."""

    value: Array
    used: Array
    value_with_call: Array
    """Mean over samples of the value, 0 where no call ran."""
    samples: Array


class Paired:
    """Items that two runs both measured, with the means of their samples; the same order on both sides."""

    def __init__(self, plain: Iterable[Answered], other: Iterable[Answered]) -> None:
        sides = _by_item(plain), _by_item(other)
        whole = [{key for key, rows in side.items() if all(row.value is not None for row in rows)} for side in sides]
        # an item without a score on one side alone would look like an effect
        keys = sorted(whole[0] & whole[1])
        self.clusters = [sides[0][key][0].cluster for key in keys]
        self.left_out = len(sides[0].keys() | sides[1].keys()) - len(keys)
        self.plain, self.other = (_sums([side[key] for key in keys]) for side in sides)

    @property
    def items(self) -> int:
        """Number of paired items."""
        return len(self.clusters)

    def estimate(self, values: Array) -> Estimate:
        """Mean over the items with its interval by cluster."""
        return Estimate.of_rate(cluster_rate(self._of(values)))

    def difference(self, more: Array, less: Array) -> Estimate:
        """Difference of two means over the items, with its interval where there are two clusters."""
        if not self.items:
            return Estimate()
        first, second = self._of(more), self._of(less)
        if first.clusters < 2:
            return Estimate(first.rate - second.rate)
        sides = cluster_differences(first, second)
        return Estimate.of(sides.value, difference_interval(sides))

    def _of(self, values: Array) -> ClusterSums:
        return sums_by_cluster(values, np.ones(self.items), self.clusters)


def tool_effect(with_tools: Iterable[Answered], without: Iterable[Answered]) -> ToolEffect:
    """Gain and harm of tools, question by question; `without` is a run of the same model with control `no_tools`."""
    pairs = Paired(with_tools, without)
    right, wrong = pairs.plain.value, 1 - pairs.plain.value
    # Samples in which a call ran and the answer is wrong: all that called less those that called and are right.
    called_right = pairs.plain.value_with_call
    called_wrong = pairs.plain.used - called_right
    before = pairs.other.value
    return ToolEffect(
        items=pairs.items,
        left_out=pairs.left_out,
        accuracy=pairs.estimate(right),
        accuracy_without=pairs.estimate(before),
        # a product of two means over samples is the share of pairs, one sample of each run
        gain=pairs.estimate((1 - before) * right),
        harm=pairs.estimate(before * wrong),
        gain_by_call=pairs.estimate((1 - before) * called_right),
        harm_by_call=pairs.estimate(before * called_wrong),
        difference=pairs.difference(right, before),
    )


def control_effect(control: str, plain: Iterable[Answered], controlled: Iterable[Answered]) -> ControlEffect:
    """Accuracy and use of tools under a control, beside those of the same items without it."""
    pairs = Paired(plain, controlled)
    return ControlEffect(
        control=control,
        items=pairs.items,
        left_out=pairs.left_out,
        accuracy=pairs.estimate(pairs.plain.value),
        controlled=pairs.estimate(pairs.other.value),
        difference=pairs.difference(pairs.other.value, pairs.plain.value),
        use=pairs.estimate(pairs.plain.used),
        use_controlled=pairs.estimate(pairs.other.used),
    )


def calibration(with_tools: Iterable[Answered], without: Iterable[Answered]) -> Calibration | None:
    """Use of tools against difficulty, which the run without tools measures; None where no item is in both runs."""
    pairs = Paired(with_tools, without)
    if not pairs.items:
        return None
    plain, other = pairs.plain, pairs.other
    found = use_calibration(
        UseCounts(
            right_without=other.value * other.samples,  # [items]; means times samples are counts again
            answers_without=other.samples,
            used=plain.used * plain.samples,
            answers=plain.samples,
            clusters=tuple(pairs.clusters),
        )
    )
    bins = tuple(UseOfTools(bar.low, bar.high, bar.questions, Estimate.of_rate(bar.use)) for bar in found.bins)
    return Calibration(bins, Estimate.of_rate(found.needed), Estimate.of_rate(found.not_needed), found.ranking)


def turns_curve(rows: Sequence[Answered]) -> tuple[TurnsPoint, ...]:
    """Right answers by the turn in which they came, summed up, of all samples that were asked."""
    right = np.array([row.value or 0.0 for row in rows])
    points = right_within([row.turns for row in rows], right, [row.cluster for row in rows])
    return tuple(TurnsPoint(point.turns, point.answered, Estimate.of_rate(point.right)) for point in points)


def limits_curve(runs: Mapping[int, Sequence[Answered]]) -> tuple[LimitOfTurns, ...]:
    """Accuracy of one model by `max_turns`, over items that every run has; one without a score is wrong.

    Empty for runs with fewer than two clusters in common.
    """
    sides = {limit: _by_item(rows) for limit, rows in runs.items()}
    keys = sorted(set.intersection(*(set(side) for side in sides.values()))) if sides else []
    if len({sides[limit][key][0].cluster for limit in sides for key in keys}) < 2:
        return ()

    def sums(side: Mapping[str, Sequence[Answered]]) -> ClusterSums:
        values = [_mean(side[key], lambda row: row.value or 0.0) for key in keys]
        return sums_by_cluster(values, [1.0] * len(keys), [side[key][0].cluster for key in keys])

    points = accuracy_by_limit({limit: sums(side) for limit, side in sides.items()})
    return tuple(
        LimitOfTurns(point.max_turns, Estimate.of_rate(point.accuracy), Estimate.of(point.gain, point.gain_interval))
        for point in points
    )


def _by_item(rows: Iterable[Answered]) -> dict[str, list[Answered]]:
    found: dict[str, list[Answered]] = {}
    for row in rows:
        found.setdefault(row.key, []).append(row)
    return found


def _sums(items: Sequence[Sequence[Answered]]) -> _Sums:
    def means(of: Callable[[Answered], float]) -> Array:
        return np.array([_mean(rows, of) for rows in items], dtype=np.float64)

    return _Sums(
        value=means(lambda row: row.value or 0.0),
        used=means(lambda row: float(row.calls > 0)),
        value_with_call=means(lambda row: (row.value or 0.0) * (row.calls > 0)),
        samples=np.array([len(rows) for rows in items], dtype=np.float64),
    )


def _mean(rows: Sequence[Answered], of: Callable[[Answered], float]) -> float:
    return sum(map(of, rows)) / len(rows)
