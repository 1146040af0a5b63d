"""Table, plot and JSON of an ablation: `python -m recipes.ablation.table --results outputs/ablation/results ...`.

Every figure is the mean over the seeds of sampled rollouts on the demo's test set, with a 95 % interval (questions
resampled, the runs of a question kept together: `codedance_verl/evaluation/intervals.py`).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from codedance_verl.errors import UserError
from codedance_verl.evaluation.metrics import accuracy_difference, rl_figures
from codedance_verl.evaluation.outcomes import EvaluationRun
from codedance_verl.evaluation.report import Figure, RlFigures
from recipes.ablation.results import Result, read_result, result_file
from recipes.ablation.variants import BASELINE, OURS, Variant, chosen
from recipes.cpu_demo.stages import parse_seeds


@dataclass(frozen=True)
class Row:
    """One variant: its figures, and its accuracy less that of the baseline (None for the baseline, or without it)."""

    variant: Variant
    accuracy: Figure
    easy_tool_rate: Figure
    hard_tool_rate: Figure
    turns: Figure
    execution_success: Figure
    over_baseline: Figure | None


COLUMNS = {
    "accuracy": "accuracy",
    "turns": "turns",
    "easy_tool_rate": "tool rate, easy",
    "hard_tool_rate": "tool rate, hard",
    "execution_success": "execution success",
}
_PERCENT = ("accuracy", "easy_tool_rate", "hard_tool_rate", "execution_success")


def read_results(folder: Path, variants: Sequence[Variant], seeds: Sequence[int]) -> dict[str, list[Result]]:
    """The results of every variant, one a seed. Raises UserError where one is missing or cannot be compared."""
    files = {variant.name: [result_file(folder, variant.name, seed) for seed in seeds] for variant in variants}
    results = {name: [read_result(path) for path in paths] for name, paths in files.items()}
    first = results[variants[0].name][0].origin
    for name, paths in files.items():
        for path, result in zip(paths, results[name], strict=True):
            if (result.origin.steps, result.origin.questions) != (first.steps, first.questions):
                raise UserError(f"{path}: trained or asked otherwise than the first one; delete it and run it again")
    return results


def read_rows(results: dict[str, list[Result]], variants: Sequence[Variant], seeds: Sequence[int]) -> list[Row]:
    """The figures of every variant."""
    runs = {name: [result.evaluation for result in found] for name, found in results.items()}
    return [_row(variant, runs, seeds) for variant in variants]


def origin_text(results: dict[str, list[Result]]) -> str:
    """Sentence on what every run began with and did."""
    origins = [result.origin for found in results.values() for result in found]
    models = len({origin.model for origin in origins})
    return f"{origins[0].steps} steps each, from {'the same SFT model' if models == 1 else f'{models} SFT models'}."


def _row(variant: Variant, runs: dict[str, list[EvaluationRun]], seeds: Sequence[int]) -> Row:
    own: RlFigures = rl_figures(runs[variant.name], seeds)
    compared = None
    if variant.name != BASELINE and BASELINE in runs:
        compared = accuracy_difference(*([run.outcomes for run in runs[name]] for name in (variant.name, BASELINE)))
    return Row(
        variant,
        own.overall.accuracy,
        own.easy.tool_rate,
        own.hard.tool_rate,
        own.overall.turns,
        own.overall.execution_success,
        compared,
    )


def markdown(rows: Sequence[Row], seeds: Sequence[int], origin: str) -> str:
    """The table, and in words whether `robust` is ahead."""
    head = ["variant", *COLUMNS.values(), f"accuracy over {BASELINE}"]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for row in rows:
        cells = [_text(getattr(row, name), percent=name in _PERCENT) for name in COLUMNS]
        over = "" if row.over_baseline is None else _text(row.over_baseline, percent=True, sign=True)
        lines.append(f"| `{row.variant.name}`, {row.variant.title} | {' | '.join([*cells, over])} |")
    number = "1 seed" if len(seeds) == 1 else f"{len(seeds)} seeds"
    return "\n".join([*lines, "", f"{number}; {origin} 95 % intervals. {verdict(rows)}", ""])


def verdict(rows: Sequence[Row]) -> str:
    """One plain sentence on how `robust` compares with the best of the others in accuracy."""
    known = {row.variant.name: row.accuracy for row in rows if row.accuracy.value is not None}
    others = {name: figure for name, figure in known.items() if name != OURS}
    if OURS not in known or not others:
        return f"`{OURS}` is not compared."
    best = max(others, key=lambda name: others[name].value or 0.0)
    ours, theirs = known[OURS], others[best]
    gap = (ours.value or 0.0) - (theirs.value or 0.0)
    if gap <= 0:
        return f"`{OURS}` does not win: `{best}` is {-gap:.1%} ahead in accuracy."
    apart = ours.low is not None and theirs.high is not None and ours.low > theirs.high
    beyond = "their intervals do not overlap" if apart else "their intervals overlap, so this may be chance"
    return f"`{OURS}` is {gap:.1%} ahead of the next, `{best}`, in accuracy; {beyond}."


def _text(figure: Figure, *, percent: bool, sign: bool = False) -> str:
    if figure.value is None:
        return "n/a"
    kind = f"{'+' if sign else ''}.1%" if percent else ".2f"
    value = format(figure.value, kind)
    return value if figure.low is None else f"{value} ({figure.low:{kind}} to {figure.high:{kind}})"


def draw(rows: Sequence[Row], path: Path) -> None:
    """A PNG: one panel a column, variants from top to bottom, intervals as bars, seeds as dots."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    height = 1.2 + 0.38 * len(rows)
    figure, axes = plt.subplots(1, len(COLUMNS), figsize=(15, height), dpi=130, sharey=True, layout="constrained")
    for panel, (name, title) in zip(axes, COLUMNS.items(), strict=True):
        for place, row in enumerate(rows):
            _draw_figure(panel, getattr(row, name), place, "#c44e52" if row.variant.name == OURS else "#4878a8")
        panel.set_title(title, fontsize=10)
        panel.grid(axis="x", color="#dddddd", lw=0.7)
        panel.set_axisbelow(True)
    axes[0].set_yticks(range(len(rows)), [row.variant.name for row in rows])
    axes[0].invert_yaxis()
    figure.savefig(path)
    plt.close(figure)


def _draw_figure(panel: Any, figure: Figure, place: int, colour: str) -> None:
    if figure.value is None:
        return
    if figure.low is not None:
        panel.plot([figure.low, figure.high], [place, place], color=colour, lw=2, alpha=0.6)
    seeds = [value for value in figure.per_seed if value is not None]
    panel.plot(seeds, [place] * len(seeds), ".", color="#888888", ms=4)
    panel.plot([figure.value], [place], "o", color=colour, ms=6)


def write(rows: Sequence[Row], seeds: Sequence[int], origin: str, out: Path) -> None:
    """Writes `ablation.json`, `ablation.md` and `ablation.png` into the folder, which is made if need be."""
    out.mkdir(parents=True, exist_ok=True)
    found = {"seeds": list(seeds), "origin": origin, "rows": [asdict(row) for row in rows], "verdict": verdict(rows)}
    (out / "ablation.json").write_text(json.dumps(found, indent=2) + "\n")
    (out / "ablation.md").write_text(markdown(rows, seeds, origin))
    draw(rows, out / "ablation.png")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Writes the table and the plot of an ablation.")
    parser.add_argument("--results", type=Path, required=True, help="folder of the results of the runs")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--variants", default="all")
    parser.add_argument("--seeds", required=True)
    options = parser.parse_args(arguments)
    try:
        seeds, variants = parse_seeds(options.seeds), chosen(options.variants)
        results = read_results(options.results, variants, seeds)
        write(read_rows(results, variants, seeds), seeds, origin_text(results), options.out)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
