"""Compares what a session costs in two checkouts, operation by operation, alternating between them in one run.

    python -m benchmarks.sandbox_cost --against CHECKOUT [--rounds 25] [--loops 2] [--output FILE]

Prints medians of CPU milliseconds in the container (MiB for idle sessions) and their ratio, and writes all values as
JSON. CPU time barely depends on other load. Needs Docker, and the sandbox image of both checkouts.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

IMAGES = ("small png", "large png", "large jpeg")
_HERE = Path(__file__).resolve()
Values = dict[str, dict[str, list[float]]]
"""Values by operation and side, `this` or `other`."""


class Side:
    """A checkout's worker process."""

    def __init__(self, checkout: Path) -> None:
        environment = os.environ | {"PYTHONPATH": str(checkout)}
        command = [sys.executable, "-P", str(_HERE.with_name("worker.py"))]
        self._worker = subprocess.Popen(
            command, cwd=checkout, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._answer()

    def ask(self, what: str, image: str, number: int = 0) -> dict[str, float]:
        assert self._worker.stdin is not None
        self._worker.stdin.write(json.dumps([what, image, number]) + "\n")
        self._worker.stdin.flush()
        return self._answer()

    def close(self) -> None:
        assert self._worker.stdin is not None
        self._worker.stdin.close()
        self._worker.wait(60)

    def _answer(self) -> dict[str, Any]:
        assert self._worker.stdout is not None
        line = self._worker.stdout.readline()
        if not line:
            sys.exit("the worker of one checkout has ended; its error stands above")
        answer: dict[str, Any] = json.loads(line)
        return answer


def measure(sides: dict[str, Side], images: Sequence[str], rounds: int, loops: int) -> Values:
    """Asks all sides in turn, round by round."""
    values: Values = {}

    def note(image: str, side: str, answer: dict[str, float]) -> None:
        for operation, value in answer.items():
            values.setdefault(f"{image}: {operation}", {}).setdefault(side, []).append(value)

    for number in range(1, rounds + 1):
        for image in images:
            for name, side in sides.items():
                note(image, name, side.ask("single", image, number))
    for image in images:
        for what, times in (("idle", 1), ("loop", loops)):
            for _ in range(times):
                for name, side in sides.items():
                    note(image, name, side.ask(what, image))
    return values


def show(values: Values, console: Console) -> None:
    table = Table(title="medians: CPU ms in the container; MiB of an idle session", title_justify="left")
    for heading in ("", "other", "this", "ratio", "p90 other", "p90 this"):
        table.add_column(heading, justify="right" if heading else "left")
    for operation, by_side in values.items():
        medians = {side: statistics.median(found) for side, found in by_side.items()}
        high = {side: sorted(found)[int(0.9 * (len(found) - 1))] for side, found in by_side.items()}
        other = medians.get("other", float("nan"))
        figures = (other, medians["this"], medians["this"] / other, high.get("other", float("nan")), high["this"])
        table.add_row(operation, *(f"{figure:.2f}" for figure in figures))
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, help="another checkout; without it this one alone is measured")
    parser.add_argument("--image", action="append", choices=IMAGES, help="repeatable; all by default")
    parser.add_argument("--rounds", type=int, default=25, help="times that each operation is measured")
    parser.add_argument("--loops", type=int, default=2, help="times that 64 callers open, call and close")
    parser.add_argument("--output", type=Path, help="JSON file for all values")
    given = parser.parse_args()
    checkouts = {"this": _HERE.parents[2]} | ({"other": given.against.resolve()} if given.against else {})
    sides = {name: Side(checkout) for name, checkout in checkouts.items()}
    try:
        values = measure(sides, given.image or IMAGES, given.rounds, given.loops)
    finally:
        for side in sides.values():
            side.close()
    show(values, Console(width=120))
    if given.output:
        record = {"load": os.getloadavg(), "cores": os.cpu_count(), "values": values}
        given.output.write_text(json.dumps(record, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
