"""Figures of every method with intervals over seeds and questions, and the pairs of methods that they separate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.special import stdtrit

from codedance_verl.errors import UserError
from codedance_verl.evaluation.metrics import rate_counts
from codedance_verl.evaluation.outcomes import Outcome
from codedance_verl.statistics.crossed_intervals import (
    RESAMPLES,
    Estimate,
    Strata,
    crossed_difference,
    crossed_rate,
    holm,
)
from codedance_verl.statistics.intervals import Counts
from recipes.ablation.columns import COMPARED, KIND_TABLES, Column, has_found, kinds_of
from recipes.ablation.results import Result

MIN_SEEDS = 3
"""Seeds below which nothing is called separated: an interval from one or two seeds says little about others."""

_MOST_SEEDS = 200


@dataclass(frozen=True)
class Cell:
    """A figure of one method: mean over seeds with its interval, and the value of each seed (null: not measured)."""

    estimate: Estimate | None
    per_seed: tuple[float | None, ...]


@dataclass(frozen=True)
class Row:
    """One method, or the model that all of them began with.

    Attributes:
        name: of the variant.
        cells: by name of the column.
        found: for each seed, whether it found code for the kind that was never demonstrated with code.
    """

    name: str
    cells: Mapping[str, Cell]
    found: tuple[bool | None, ...]


@dataclass(frozen=True)
class Run:
    """One run: its values by name of the column (null: not measured), and whether it found code as in `Row`."""

    values: Mapping[str, float | None]
    found: bool | None


@dataclass(frozen=True)
class Pair:
    """Two methods in one column, the one with the larger value first.

    Attributes:
        apart: their intervals do not overlap.
        difference: first minus second, questions paired.
        p_value: of the difference, adjusted for all pairs of the column (Holm).
    """

    first: str
    second: str
    apart: bool
    difference: Estimate
    p_value: float


@dataclass(frozen=True)
class Comparison:
    """All figures of a comparison.

    Attributes:
        seeds: seeds that every compared method has; all figures but `runs` are of these alone.
        start: the model before RL; None where it was not evaluated.
        pairs: by name of the column; empty with fewer than `MIN_SEEDS` seeds.
        runs: every run there is, by method and seed; `missing` those that there should be.
        steps, models: RL steps of a run, and from how many SFT models they began.
    """

    seeds: tuple[int, ...]
    kinds: tuple[str, ...]
    start: Row | None
    rows: tuple[Row, ...]
    pairs: Mapping[str, tuple[Pair, ...]]
    runs: Mapping[str, Mapping[int, Run]]
    missing: tuple[tuple[str, int], ...]
    steps: int
    models: int


def compare(
    found: Mapping[str, Mapping[int, Result]], start: Result | None, seeds: Sequence[int], resamples: int = RESAMPLES
) -> Comparison:
    """Compares the methods that have a result, over the seeds that all of them have.

    Args:
        found: results by method and seed; a method without any is missing altogether and compared with none.
        start: the model before RL, where it was evaluated.
        seeds: the seeds there should be.
        resamples: of each interval.

    Raises:
        UserError: there is no result at all.
    """
    present = {name: results for name, results in found.items() if results}
    if not present:
        raise UserError("no run has ended yet; there is nothing to compare")
    complete = tuple(seed for seed in seeds if all(seed in results for results in present.values()))
    first = next(iter(next(iter(present.values())).values()))
    kinds = kinds_of(first.evaluation.outcomes)
    outcomes = {name: [present[name][seed].evaluation.outcomes for seed in complete] for name in present}
    columns = (*COMPARED, *(table.column(kind) for table in KIND_TABLES for kind in kinds))

    def row(name: str, runs: Sequence[Sequence[Outcome]]) -> Row:
        cells = {column.name: _cell(column, runs, resamples) for column in columns}
        return Row(name, cells, tuple(has_found(run) for run in runs))

    rows = tuple(row(name, runs) for name, runs in outcomes.items()) if complete else ()
    compared = COMPARED if len(complete) >= MIN_SEEDS else ()
    return Comparison(
        seeds=complete,
        kinds=kinds,
        start=row("start", [start.evaluation.outcomes]) if start else None,
        rows=rows,
        pairs={column.name: _pairs(column, outcomes, rows, resamples) for column in compared},
        runs={
            name: {seed: _run(result.evaluation.outcomes) for seed, result in results.items()}
            for name, results in present.items()
        },
        missing=tuple((name, seed) for seed in seeds for name, results in found.items() if seed not in results),
        steps=first.origin.steps,
        models=len({result.origin.model for results in present.values() for result in results.values()}),
    )


def groups(rows: Sequence[Row], column: str) -> dict[str, str]:
    """Letters of every method: two methods share one where their intervals overlap, and only there."""
    intervals = _intervals(rows, column)
    letters = dict.fromkeys(intervals, "")
    covering: list[set[str]] = []
    # The largest sets of intervals that all overlap one another are those that hold a point, here a lower end.
    for point in sorted((low for low, _ in intervals.values()), reverse=True):
        members = {name for name, (low, high) in intervals.items() if low <= point <= high}
        if not any(members <= other for other in covering):
            covering = [other for other in covering if not other <= members] + [members]
    for number, members in enumerate(covering):
        for name in members:
            letters[name] += chr(ord("a") + number)
    return letters


def separated(rows: Sequence[Row], column: str) -> list[str]:
    """As many methods as possible of which no two intervals overlap, from the highest value to the lowest."""
    chosen: list[str] = []
    ceiling = float("inf")
    # Taking the interval that begins highest, again and again, leaves most room for others.
    for name, (low, high) in sorted(_intervals(rows, column).items(), key=lambda item: -item[1][0]):
        if high < ceiling:
            chosen.append(name)
            ceiling = low
    return chosen


def seeds_needed(rows: Sequence[Row], pair: Pair, column: str, seeds: int) -> int | None:
    """Seeds at which the intervals of a pair would part if values and spread stayed as they are; None beyond 200."""
    cells = {row.name: row.cells[column].estimate for row in rows}
    spreads = [estimate.spread for name in (pair.first, pair.second) if (estimate := cells[name]) is not None]
    for number in range(max(seeds, 2), _MOST_SEEDS + 1):
        variances = [item.seeds * seeds / number + max(item.questions - item.both, 0.0) for item in spreads]
        if sum(float(stdtrit(number - 1, 0.975)) * variance**0.5 for variance in variances) < pair.difference.value:
            return number
    return None


def _run(outcomes: Sequence[Outcome]) -> Run:
    values = {}
    for column in COMPARED:
        (counts,), _ = _counts(column, [[outcomes]])
        rate = float(counts.rates()[0])
        values[column.name] = None if np.isnan(rate) else rate
    return Run(values, has_found(outcomes))


def _cell(column: Column, runs: Sequence[Sequence[Outcome]], resamples: int) -> Cell:
    (counts,), strata = _counts(column, [runs])
    per_seed = tuple(None if np.isnan(rate) else float(rate) for rate in counts.rates())
    return Cell(crossed_rate(counts, strata, resamples=resamples), per_seed)


def _pairs(
    column: Column, outcomes: Mapping[str, Sequence[Sequence[Outcome]]], rows: Sequence[Row], resamples: int
) -> tuple[Pair, ...]:
    intervals = _intervals(rows, column.name)
    known = {row.name: estimate.value for row in rows if (estimate := row.cells[column.name].estimate) is not None}
    pairs = []
    for one, other in combinations(known, 2):
        first, second = (one, other) if known[one] >= known[other] else (other, one)
        counts, strata = _counts(column, [outcomes[first], outcomes[second]])
        if (difference := crossed_difference(counts[0], counts[1], strata, resamples=resamples)) is not None:
            apart = intervals[first][0] > intervals[second][1]
            pairs.append(Pair(first, second, apart, difference, difference.p_value))
    adjusted = holm([pair.p_value for pair in pairs])
    return tuple(
        Pair(pair.first, pair.second, pair.apart, pair.difference, p_value)
        for pair, p_value in zip(pairs, adjusted, strict=True)
    )


def _counts(column: Column, methods: Sequence[Sequence[Sequence[Outcome]]]) -> tuple[list[Counts], Strata]:
    """Counts of each method over the questions of all, and the kind of each question, by which they are drawn."""
    counts, questions = rate_counts(methods, column.measure, column.variant, column.choose)
    kind = {outcome.record_id: outcome.kind for runs in methods for run in runs for outcome in run}
    _, strata = np.unique([kind[question] for question in questions], return_inverse=True)
    return counts, strata


def _intervals(rows: Sequence[Row], column: str) -> dict[str, tuple[float, float]]:
    return {
        row.name: (estimate.low, estimate.high) for row in rows if (estimate := row.cells[column].estimate) is not None
    }
