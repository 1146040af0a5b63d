"""Table of both arms after SFT and after RL, and what tells them apart: `python -m recipes.data_path.table`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from codedance_verl.data.conditions import GREEDY, SAMPLED
from codedance_verl.data.parquet import open_parquet
from codedance_verl.errors import UserError
from codedance_verl.evaluation.metrics import ACCURACY, TOOL_RATE, Runs, rate_counts
from codedance_verl.evaluation.outcomes import Outcome, read_evaluation
from codedance_verl.filtering.run import REPORT
from codedance_verl.runtime.atomic import write_atomically
from codedance_verl.statistics.crossed_intervals import RESAMPLES, Estimate, crossed_difference, crossed_rate
from recipes.ablation.columns import Column
from recipes.ablation.comparison import MIN_SEEDS
from recipes.cpu_demo.stages import Layout, parse_seeds
from recipes.data_path.paths import ARMS, FILTERED, RL_TRAIN, SFT, UNFILTERED, layout


def _hard(outcome: Outcome) -> bool:
    return outcome.difficulty == "hard"


def _easy(outcome: Outcome) -> bool:
    return outcome.difficulty == "easy"


COLUMNS = (
    Column("greedy_hard", "greedy accuracy, hard", GREEDY, _hard, ACCURACY),
    Column("sampled_hard", "sampled accuracy, hard", SAMPLED, _hard, ACCURACY),
    Column("greedy_easy", "greedy accuracy, easy", GREEDY, _easy, ACCURACY),
    Column("sampled_easy", "sampled accuracy, easy", SAMPLED, _easy, ACCURACY),
    Column("needless", "needless calls", SAMPLED, _easy, TOOL_RATE),
)

AFTER_SFT, AFTER_RL = "SFT", "RL"
DECIDES = (AFTER_RL, COLUMNS[0].name)
"""Line that decides on the sentence, chosen before anything was measured: with ten lines one would else be found."""


@dataclass(frozen=True)
class Line:
    """Rate of both arms.

    Attributes:
        after: `SFT` or `RL`.
        column: name of the column.
        title: of the column.
        filtered, unfiltered: mean over the seeds; None where nothing was measured.
        difference: filtered less unfiltered, questions paired.
    """

    after: str
    column: str
    title: str
    filtered: Estimate | None
    unfiltered: Estimate | None
    difference: Estimate | None


def lines_of(after: str, runs: Mapping[str, Runs], resamples: int = RESAMPLES) -> Iterator[Line]:
    """Lines on the rollouts of both arms, by arm and seed; intervals are over questions and seeds."""
    kinds = {outcome.record_id: outcome.kind for arm in ARMS for run in runs[arm] for outcome in run}
    for column in COLUMNS:
        counts, questions = rate_counts([runs[arm] for arm in ARMS], column.measure, column.variant, column.choose)
        _, strata = np.unique([kinds[question] for question in questions], return_inverse=True)
        filtered, unfiltered = (crossed_rate(side, strata, resamples=resamples) for side in counts)
        difference = crossed_difference(counts[0], counts[1], strata, resamples=resamples)
        yield Line(after, column.name, column.title, filtered, unfiltered, difference)


def read_lines(out: Path, seeds: Sequence[int]) -> tuple[Line, ...]:
    """Lines of finished runs. Raises UserError: an evaluation is not there."""
    after_sft: dict[str, list[tuple[Outcome, ...]]] = {arm: [] for arm in ARMS}
    after_rl: dict[str, list[tuple[Outcome, ...]]] = {arm: [] for arm in ARMS}
    for arm in ARMS:
        for seed in seeds:
            of = layout(out, arm, seed)
            after_sft[arm].append(_outcomes(of, of.eval_sft))
            after_rl[arm].append(_outcomes(of, of.rl(seed)))
    return (*lines_of(AFTER_SFT, after_sft), *lines_of(AFTER_RL, after_rl))


def _outcomes(of: Layout, run: Path) -> tuple[Outcome, ...]:
    return read_evaluation(run / "trajectories", of.data / "test.parquet").outcomes


def verdict(lines: Sequence[Line], seeds: int) -> str:
    """Sentence on which data is better, or that they are not told apart."""
    if seeds < MIN_SEEDS:
        return f"Which data is better is not judged: it takes {MIN_SEEDS} seeds, and there are {seeds}."
    line = next((line for line in lines if (line.after, line.column) == DECIDES), None)
    if line is None or line.difference is None:
        return "Which data is better is not judged: greedy accuracy on hard questions was not measured."
    found = line.difference
    interval = f"{100 * found.low:+.1f} to {100 * found.high:+.1f}"
    measured = (
        f"greedy accuracy on hard questions after RL: {100 * found.value:+.1f} points ({interval}), {seeds} seeds"
    )
    if found.low > 0:
        return f"Filtered data is better than unfiltered data of equal size in {measured}."
    if found.high < 0:
        return f"Filtered data is worse than unfiltered data of equal size in {measured}."
    return f"Filtered and unfiltered data of equal size are not told apart by {measured}."


def markdown(lines: Sequence[Line], seeds: int, basis: Sequence[str] = ()) -> str:
    """Sentence, facts on the data, and a row for each line."""
    table = [f"| after | rate | {FILTERED} | {UNFILTERED} | difference in points |", "|---|---|---|---|---|"]
    for line in lines:
        cells = (_share(line.filtered), _share(line.unfiltered), _points(line.difference))
        table.append(f"| {line.after} | {line.title} | {' | '.join(cells)} |")
    note = "In brackets: 95 % intervals over questions and seeds; those of the differences pair the questions."
    return "\n\n".join([verdict(lines, seeds), *basis, "\n".join(table), note]) + "\n"


def basis(out: Path, strata: Path, seed: int) -> Iterator[str]:
    """Facts on the data. Raises UserError: a file is not there."""
    try:
        found = json.loads((strata / REPORT).read_text(encoding="utf-8"))["strata"]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{strata / REPORT}: cannot be read ({error}); run the path again") from None
    yield f"Strata of {sum(found.values()):,} questions: {', '.join(f'{n:,} {name}' for name, n in found.items())}."
    data = layout(out, FILTERED, seed).data
    sft, rl = (open_parquet(data / name).metadata.num_rows for name in (SFT, RL_TRAIN))
    yield f"Each arm has {sft:,} demonstrations and {rl:,} questions for RL."


def _share(found: Estimate | None) -> str:
    return "n/a" if found is None else f"{found.value:.1%} ({found.low:.1%} to {found.high:.1%})"


def _points(found: Estimate | None) -> str:
    if found is None:
        return "n/a"
    return f"{100 * found.value:+.1f} ({100 * found.low:+.1f} to {100 * found.high:+.1f})"


def main(arguments: list[str] | None = None) -> int:
    """Command-line entry; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m recipes.data_path.table", description="Writes data_path.md.")
    parser.add_argument("--out", type=Path, required=True, help="folder of the path")
    parser.add_argument("--strata", type=Path, required=True, help="folder of the filter")
    parser.add_argument("--seeds", required=True, help="separated by commas")
    options = parser.parse_args(arguments)
    try:
        seeds = parse_seeds(options.seeds)
        facts = list(basis(options.out, options.strata, seeds[0]))
        lines = read_lines(options.out, seeds)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    document = {"verdict": verdict(lines, len(seeds)), "basis": facts, "lines": [asdict(line) for line in lines]}
    write_atomically(options.out / "data_path.json", json.dumps(document, indent=1) + "\n")
    write_atomically(options.out / "data_path.md", markdown(lines, len(seeds), facts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
