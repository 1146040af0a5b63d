"""Coverage and power of the statistics of an evaluation: `python -m benchmarks.evaluation_statistics`.

Answers are drawn from models whose true figures are known. It is counted how often 95 % intervals hold them, how often
`compare` sees a difference of three points, and how often one where there is none. Each cell of the tables goes into
the JSON file as soon as it is done; a later call with the same draws skips it.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.evaluation_models import (
    COMPARED,
    COMPOSITES,
    SHAPES,
    Compared,
    composite_sums,
    composite_truth,
    paired_sides,
    right_answers,
)
from benchmarks.interval_methods import DIFFERENCE_METHODS, RATE_METHODS, RESAMPLED
from codedance_verl.runtime.atomic import write_atomically
from codedance_verl.statistics.clusters import ClusterSums
from codedance_verl.statistics.comparison import compare
from codedance_verl.statistics.crossed_intervals import holm
from codedance_verl.statistics.differences import ClusterDifferences, difference_test
from codedance_verl.statistics.intervals import Array, Interval
from codedance_verl.statistics.power import LEVEL, paired_power

ACCURACIES = (0.05, 0.25, 0.5, 0.75, 0.95)
TYPICAL = 0.3
ALIKE = (0.0, TYPICAL, 0.8)
EXTREME, NEARLY_ALL = "HR-Bench, 200 of 4", (0.98, 0.99)
DIFFERENCES = ((0.1, 0.0), (0.1, 0.05), (0.2, 0.03))
"""Discordance and difference of two models."""

PLANTED = 0.03
_FULL_PAIRS = 200
"""Pairs that go through the whole of `compare`; the others only through its test."""

Cell = tuple[str, Callable[[], dict[str, Any]]]


@dataclass(frozen=True)
class Draws:
    """Experiments in a cell: for closed methods, for those that resample."""

    closed: int
    resampled: int


def rate_cells(draws: Draws) -> Iterator[Cell]:
    """Accuracies over clusters, by shape of the benchmark, accuracy, and correlation within clusters."""
    for shape, sizes in SHAPES.items():
        for accuracy in ACCURACIES:
            for alike in _correlations(shape, sizes):
                name = f"rate | {shape} | accuracy {accuracy} | alike {alike}"
                yield name, partial(_rates, shape, accuracy, alike, draws)
    for accuracy in NEARLY_ALL:
        for alike in ALIKE:
            name = f"rate | nearly all right: {EXTREME} | accuracy {accuracy} | alike {alike}"
            yield name, partial(_rates, EXTREME, accuracy, alike, draws)


def _correlations(shape: str, sizes: npt.NDArray[np.int64]) -> tuple[float, ...]:
    if sizes.max() == 1:
        return (0.0,)
    return (TYPICAL,) if shape.startswith("few") else ALIKE


def composite_cells(draws: Draws) -> Iterator[Cell]:
    """Scores of WeMath's composites, by mean ability."""
    for figure in COMPOSITES:
        for ability in (-1.5, 0.0, 1.5):
            yield f"composite | {figure} | ability {ability}", partial(_composites, figure, ability, draws)


def difference_cells(draws: Draws) -> Iterator[Cell]:
    """Differences of two models over clusters."""
    for number, size, moving in (
        (191, 1, (0.0,)),
        (1000, 1, (0.0,)),
        *((m, 4, (0.0, 0.5, 1.0)) for m in (75, 200, 1000)),
    ):
        for (discordance, difference), moved in product(DIFFERENCES, moving):
            label = f"discordance {discordance} | difference {difference} | moved as one {moved}"
            case = Compared(number, size, discordance, moved)
            yield f"difference | {number:,} of {size} | {label}", partial(_differences, case, difference, draws)


def comparison_cells(draws: Draws) -> Iterator[Cell]:
    """The planted difference, and none."""
    for name, case in COMPARED.items():
        yield f"planted | {name}", partial(_planted, case, draws)
        yield f"null | {name}", partial(_null, case, draws)


GROUPS: Mapping[str, Callable[[Draws], Iterator[Cell]]] = {
    "comparison": comparison_cells,
    "rate": rate_cells,
    "composite": composite_cells,
    "difference": difference_cells,
}


def _rates(shape: str, accuracy: float, alike: float, draws: Draws) -> dict[str, Any]:
    right = right_answers(np.random.default_rng(1), SHAPES[shape], accuracy, alike, draws.closed)
    sums = [ClusterSums(row, SHAPES[shape].astype(np.float64)) for row in right]
    some = draws.resampled if alike == TYPICAL or SHAPES[shape].max() == 1 else 0
    return _coverage(RATE_METHODS, sums, accuracy, some)


def _composites(figure: str, ability: float, draws: Draws) -> dict[str, Any]:
    generator = np.random.default_rng(2)
    sums = [composite_sums(generator, figure, ability) for _ in range(draws.closed)]
    truth = composite_truth(figure, ability)
    return {"truth": truth, **_coverage(RATE_METHODS, sums, truth, draws.resampled)}


def _differences(case: Compared, difference: float, draws: Draws) -> dict[str, Any]:
    drawn = case.differences(np.random.default_rng(3), difference, draws.closed)
    sizes = np.full(case.clusters, float(case.size))
    samples = [ClusterDifferences(row, sizes) for row in drawn]
    return _coverage(DIFFERENCE_METHODS, samples, difference, draws.resampled)


def _coverage(methods: Mapping[str, Any], samples: list[Any], truth: float, resampled: int) -> dict[str, Any]:
    """Percent of experiments in which each method holds the truth, and the mean width of the first.

    Methods that resample see the first `resampled` experiments.
    """
    found: dict[str, Any] = {"draws": len(samples)}
    for name, method in methods.items():
        some = samples[:resampled] if name in RESAMPLED else samples
        if some:
            intervals: list[Interval] = [method(sample) for sample in some]
            held = [low - 1e-12 <= truth <= high + 1e-12 for low, high in intervals]
            found[name] = round(100 * float(np.mean(held)), 2)
            found.setdefault("width", round(100 * float(np.mean([high - low for low, high in intervals])), 2))
    return found


def _planted(case: Compared, draws: Draws) -> dict[str, Any]:
    """Stated power beside the share of pairs in which the difference is seen, in percent."""
    generator = np.random.default_rng(4)
    drawn = case.differences(generator, PLANTED, draws.closed // 2)
    everything = ClusterDifferences(drawn.ravel(), np.full(drawn.size, float(case.size)))
    items = case.clusters * case.size
    stated = paired_power(int(items / everything.design_effect), everything.discordance, PLANTED)
    pairs = [paired_sides(case, generator, PLANTED) for _ in range(min(_FULL_PAIRS, draws.closed))]
    return {
        "stated": round(100 * stated, 1),
        "found": round(100 * _share_seen(drawn), 1),
        "found by compare": round(100 * float(np.mean([compare(a, b).seen for a, b in pairs])), 1),
        "design effect": round(everything.design_effect, 2),
        "draws": len(drawn),
        "compared": len(pairs),
    }


def _null(case: Compared, draws: Draws) -> dict[str, Any]:
    """False positives: of 20 pairs as they are and after Holm's adjustment, and percent of many."""
    generator = np.random.default_rng(5)
    many = case.differences(generator, 0.0, draws.closed)
    found = [compare(*paired_sides(case, generator, 0.0)) for _ in range(20)]
    tests = [difference_test(ClusterDifferences(row, np.ones(row.size))) for row in many]
    return {
        "of 20": sum(one.seen for one in found),
        "of 20, Holm": sum(value <= LEVEL for value in holm([one.p.exact for one in found])),
        "percent": round(100 * float(np.mean([one.exact <= LEVEL for one in tests])), 2),
        "percent, mid-p": round(100 * float(np.mean([one.mid <= LEVEL for one in tests])), 2),
        "draws": len(many),
    }


def _share_seen(drawn: Array) -> float:
    return float(np.mean([difference_test(ClusterDifferences(row, np.ones(row.size))).exact <= LEVEL for row in drawn]))


def measure(cells: Iterator[Cell], output: Path, draws: Draws) -> dict[str, Any]:
    """Results by cell, read from the file where they were measured with the same draws before, else measured now."""
    setting = [draws.closed, draws.resampled]
    known = json.loads(output.read_text()) if output.exists() else {}
    done: dict[str, Any] = known.get("cells", {}) if known.get("setting") == setting else {}
    for name, work in cells:
        if name not in done:
            started = time.process_time()
            done[name] = {**work(), "cpu_s": round(time.process_time() - started, 2)}
            output.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(output, json.dumps({"setting": setting, "cells": done}, indent=1))
        print(f"{name}: {json.dumps(done[name])}", flush=True)
    return done


def summary(cells: Mapping[str, Mapping[str, Any]]) -> str:
    """A line for each group of cells and method: lowest, mean and highest coverage, share of cells in 93 to 97."""
    groups: dict[tuple[str, str], list[float]] = {}
    for name, cell in cells.items():
        kind, group, *_ = name.split(" | ")
        for method in (*RATE_METHODS, *DIFFERENCE_METHODS):
            if method in cell and kind in ("rate", "composite", "difference"):
                groups.setdefault((f"{kind} | {group}", method), []).append(cell[method])
    lines = ["| cells | method | lowest | mean | highest | in 93 to 97 |", "|---|---|---|---|---|---|"]
    for (group, method), values in groups.items():
        inside: npt.NDArray[np.bool_] = (np.array(values) >= 93) & (np.array(values) <= 97)
        figures = f"{min(values):.1f} | {np.mean(values):.1f} | {max(values):.1f} | {inside.sum()} of {len(values)}"
        lines.append(f"| {group.replace(' | ', ': ')} | {method} | {figures} |")
    return "\n".join(lines)


def main() -> None:
    """Measures all cells and prints them, then the summary."""
    parser = argparse.ArgumentParser(description="Measures coverage and power of the statistics of an evaluation.")
    parser.add_argument("--output", type=Path, default=Path("outputs/evaluation_statistics.json"))
    parser.add_argument("--draws", type=int, default=4_000, help="experiments of a cell (default: 4000)")
    parser.add_argument("--resampled", type=int, default=400, help="of them for methods that resample (default: 400)")
    parser.add_argument("--only", choices=GROUPS, action="append", help="a group of cells; may come several times")
    options = parser.parse_args()
    draws = Draws(options.draws, options.resampled)
    cells = (cell for name in options.only or GROUPS for cell in GROUPS[name](draws))
    print(summary(measure(cells, options.output, draws)))


if __name__ == "__main__":
    main()
