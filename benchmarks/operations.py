"""Precision, recall and cost of the catalogue of operations: `python -m benchmarks.operations`.

Labelled programs lie in `tests/data/operations/<part>/*.txt`. A line `==== labels` begins one, `----` parts its cells.
An item is a pair of a program and a category: right where both the label and the analysis have it.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codedance_verl.operations.analysis import Analysis, analyse
from codedance_verl.operations.catalogue import Category

DATA = Path(__file__).resolve().parents[1] / "tests" / "data" / "operations"
PARTS = ("held_out", "development", "fresh")
_BEGIN, _CELL = "==== ", "----\n"


@dataclass(frozen=True)
class Labelled:
    """Program with the categories that a person gave it. `name` is `<file>:<number>`."""

    name: str
    labels: frozenset[Category]
    cells: tuple[str, ...]


def read_part(folder: Path) -> tuple[Labelled, ...]:
    """Labelled programs of a folder. Raises ValueError for a label that is no category."""
    return tuple(item for path in sorted(folder.glob("*.txt")) for item in _read(path))


def _read(path: Path) -> Iterator[Labelled]:
    for number, text in enumerate(path.read_text().split(_BEGIN)[1:]):
        labels, _, code = text.partition("\n")
        yield Labelled(f"{path.stem}:{number}", frozenset(map(Category, labels.split())), tuple(code.split(_CELL)))


@dataclass(frozen=True)
class Agreement:
    """Agreement of labels and analysis: items that both have, the analysis alone, the labels alone."""

    both: int = 0
    extra: int = 0
    missing: int = 0

    @property
    def precision(self) -> float:
        return self.both / max(self.both + self.extra, 1)

    @property
    def recall(self) -> float:
        return self.both / max(self.both + self.missing, 1)

    def as_json(self) -> dict[str, Any]:
        return {
            "both": self.both,
            "extra": self.extra,
            "missing": self.missing,
            "precision": round(self.precision, 4),
            "recall": round(self.recall, 4),
        }


def agreement(programs: Iterable[Labelled], among: frozenset[Category] = frozenset(Category)) -> Agreement:
    """Agreement over programs, of these categories alone."""
    both = extra = missing = 0
    for program in programs:
        found = analyse(program.cells).categories & among
        labels = program.labels & among
        both += len(found & labels)
        extra += len(found - labels)
        missing += len(labels - found)
    return Agreement(both, extra, missing)


def disagreements(programs: Iterable[Labelled]) -> dict[str, dict[str, list[str]]]:
    """What the analysis has too much and too little, by program."""
    found: dict[str, dict[str, list[str]]] = {}
    for program in programs:
        categories = analyse(program.cells).categories
        if categories != program.labels:
            found[program.name] = {
                "extra": sorted(categories - program.labels),
                "missing": sorted(program.labels - categories),
            }
    return found


def cost(programs: Iterable[Labelled], repeats: int) -> dict[str, float]:
    """CPU milliseconds of a cell: the mean, and the program with the most a cell; the least of `repeats` tries each."""
    sessions = [program.cells for program in programs]
    times = [min(_seconds(cells) for _ in range(repeats)) for cells in sessions]
    per_cell = [1000 * seconds / len(cells) for seconds, cells in zip(times, sessions, strict=True)]
    cells = sum(map(len, sessions))
    lines = sum(cell.count("\n") for session in sessions for cell in session)
    return {
        "cells": cells,
        "lines_a_cell": round(lines / cells, 1),
        "ms_a_cell": round(1000 * sum(times) / cells, 3),
        "most_ms_a_cell": round(max(per_cell), 3),
    }


def _seconds(cells: tuple[str, ...]) -> float:
    start = time.process_time()
    found: Analysis = analyse(cells)
    assert found.cells
    return time.process_time() - start


def measure(repeats: int) -> dict[str, Any]:
    """Figures of every part, and of its thirds and categories."""
    parts = {part: read_part(DATA / part) for part in PARTS}
    return {
        part: {
            "programs": len(programs),
            **agreement(programs).as_json(),
            "files": {
                name: agreement(item for item in programs if item.name.startswith(f"{name}:")).as_json()
                for name in sorted({item.name.partition(":")[0] for item in programs})
            },
            "categories": {str(one): agreement(programs, frozenset((one,))).as_json() for one in Category},
            "disagreements": disagreements(programs) if part != "held_out" else "not shown: nothing is tuned on it",
            "cost": cost(programs, repeats),
        }
        for part, programs in parts.items()
    }


def main() -> None:
    """Prints the figures as JSON."""
    parser = argparse.ArgumentParser(description="Measures the catalogue of operations on labelled programs.")
    parser.add_argument("--repeats", type=int, default=5, help="tries of each program for its CPU time (default: 5)")
    parser.add_argument("--output", type=Path, help="file for the figures")
    options = parser.parse_args()
    text = json.dumps(measure(options.repeats), indent=1)
    if options.output is not None:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
