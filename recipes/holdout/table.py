"""Table of a hold-out study: how often code has the category that the demonstrations lack, before and through RL."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path

from codedance_verl.evaluation.operations import RolloutOperations, known_from, read_rollouts
from codedance_verl.operations.catalogue import Category
from codedance_verl.operations.novelty import Repertoire, new_in
from codedance_verl.operations.rates import Rate, rate
from codedance_verl.runtime.atomic import write_atomically
from recipes.cpu_demo.stages import Layout, parse_seeds

STEPS_A_ROW = 5
"""Steps of training that one row of the table takes together."""


@dataclass(frozen=True)
class Row:
    """Rollouts of one place of one model.

    Attributes:
        model: `held out` or `demo`.
        seed: of RL; None before it.
        place: what the rollouts are of, such as `steps 1-5`.
        having: rollouts whose code has the category, live, per 1,000.
        right: share of right answers among these; None where there are none.
        new: rollouts with any category, call or composition that the demonstrations lack, per 1,000.
    """

    model: str
    seed: int | None
    place: str
    having: Rate
    right: float | None
    new: Rate


def rows(name: str, layout: Layout, category: Category, seeds: Sequence[int]) -> Iterator[Row]:
    """Rows of one model: evaluation of SFT, training, evaluation after RL. Raises UserError: a log is not there."""
    known = known_from(layout.data / "sft.parquet")
    yield _row(name, None, "evaluation of SFT", read_rollouts(layout.eval_sft / "trajectories", "val"), category, known)
    for seed in seeds:
        log = layout.rl(seed) / "trajectories"
        for number, part in groupby(read_rollouts(log, "train"), lambda one: (one.step - 1) // STEPS_A_ROW):
            place = f"steps {number * STEPS_A_ROW + 1}-{(number + 1) * STEPS_A_ROW}"
            yield _row(name, seed, place, part, category, known)
        yield _row(name, seed, "evaluation of RL", read_rollouts(log, "val"), category, known)


def _row(
    model: str,
    seed: int | None,
    place: str,
    rollouts: Iterator[RolloutOperations],
    category: Category,
    known: Repertoire,
) -> Row:
    found = list(rollouts)
    having = [one for one in found if category in one.analysis.categories]
    right = [one.right for one in having if one.right is not None]
    new = sum(bool(new_in(one.analysis, known)) for one in found)
    return Row(
        model=model,
        seed=seed,
        place=place,
        having=rate(len(having), len(found)),
        right=sum(right) / len(right) if right else None,
        new=rate(new, len(found)),
    )


def markdown(category: Category, found: Sequence[Row]) -> str:
    """Table with a row for each place."""
    columns = ("demonstrations", "seed", "rollouts of", f"with {category}, per 1,000", "right among them")
    lines = [f"| {' | '.join((*columns, 'anything new, per 1,000'))} |", "|---|---|---|---|---|---|"]
    for row in found:
        seed, right = "" if row.seed is None else row.seed, "" if row.right is None else f"{100 * row.right:.1f} %"
        lines.append(f"| {row.model} | {seed} | {row.place} | {_words(row.having)} | {right} | {_words(row.new)} |")
    return "\n".join(lines) + "\n"


def _words(found: Rate) -> str:
    return f"{found.per_1000:.1f} ({found.low:.1f} to {found.high:.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description="Writes holdout.md and holdout.json.")
    parser.add_argument("--out", type=Path, required=True, help="folder of the study")
    parser.add_argument("--demo", type=Path, required=True, help="folder of the demo it was made from")
    parser.add_argument("--category", type=Category, choices=list(Category), required=True)
    parser.add_argument("--seeds", required=True)
    options = parser.parse_args()
    seeds = parse_seeds(options.seeds)
    found = [
        *rows("all but it", Layout(options.out), options.category, seeds),
        *rows("all", Layout(options.demo), options.category, seeds),
    ]
    write_atomically(options.out / "holdout.json", json.dumps([asdict(row) for row in found], indent=1))
    write_atomically(options.out / "holdout.md", markdown(options.category, found))


if __name__ == "__main__":
    main()
