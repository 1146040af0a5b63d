"""Plot of a comparison: a panel a column, methods from top to bottom, intervals as bars, seeds as dots."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recipes.ablation.columns import COMPARED
from recipes.ablation.comparison import Cell, Comparison, groups
from recipes.ablation.variants import OURS

_OURS, _OTHERS, _START, _SEEDS = "#c44e52", "#4878a8", "#555555", "#888888"


def draw(comparison: Comparison, path: Path) -> None:
    """Writes a PNG. A dashed line is the model before RL; methods that share a letter are not separated."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    height = 1.4 + 0.42 * max(1, len(comparison.rows))
    figure, axes = plt.subplots(
        1, len(COMPARED), figsize=(2.7 * len(COMPARED), height), dpi=130, sharey=True, layout="constrained"
    )
    for panel, column in zip(axes, COMPARED, strict=True):
        letters = groups(comparison.rows, column.name) if comparison.pairs else {}
        _draw_panel(panel, comparison, column.name, letters)
        panel.set_title(column.title, fontsize=9)
    axes[0].set_yticks(range(len(comparison.rows)), [row.name for row in comparison.rows])
    axes[0].invert_yaxis()
    figure.savefig(path)
    plt.close(figure)


def _draw_panel(panel: Any, comparison: Comparison, column: str, letters: Mapping[str, str]) -> None:
    start = comparison.start.cells[column].estimate if comparison.start else None
    if start is not None:
        panel.axvline(start.value, color=_START, lw=1, ls="--")
    for place, row in enumerate(comparison.rows):
        _draw_cell(panel, row.cells[column], place, _OURS if row.name == OURS else _OTHERS)
        panel.annotate(
            letters.get(row.name, ""),
            (1, place),
            xycoords=("axes fraction", "data"),
            fontsize=8,
            ha="right",
            va="center",
        )
    panel.grid(axis="x", color="#dddddd", lw=0.7)
    panel.set_axisbelow(True)
    panel.set_ylim(-0.5, max(1, len(comparison.rows)) - 0.5)
    panel.margins(x=0.15)  # room for the letters
    panel.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")


def _draw_cell(panel: Any, cell: Cell, place: int, colour: str) -> None:
    if cell.estimate is None:
        return
    panel.plot([cell.estimate.low, cell.estimate.high], [place, place], color=colour, lw=2, alpha=0.6)
    seeds = [value for value in cell.per_seed if value is not None]
    panel.plot(seeds, [place] * len(seeds), ".", color=_SEEDS, ms=4)
    panel.plot([cell.estimate.value], [place], "o", color=colour, ms=6)
