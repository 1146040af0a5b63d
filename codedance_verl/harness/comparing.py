"""Comparison of two evaluations (`codedance eval compare`): the same questions, paired, under the same settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from codedance_verl.errors import UserError
from codedance_verl.harness.figures import WAYS, FigureSums, ValuedItem, faults_of, sums_of, valued, whole_clusters
from codedance_verl.harness.figures import right as counted_right
from codedance_verl.harness.figures import wrong as counted_wrong
from codedance_verl.harness.scores import TaskScores, read_scores, scored_tasks
from codedance_verl.records.key import Json, Key, Part
from codedance_verl.records.store import KEY_FILE, existing_store
from codedance_verl.runtime.text import visible
from codedance_verl.statistics.clusters import ClusterSums
from codedance_verl.statistics.comparison import Comparison, Side, compare, p_text
from codedance_verl.statistics.crossed_intervals import holm
from codedance_verl.statistics.power import LEVEL
from codedance_verl.tasks.figures import Figure, Figures
from codedance_verl.tasks.own_records import own_figures
from codedance_verl.tasks.registry import TASKS

MODEL = "model"
"""Part of the key of replies that may differ: what is compared."""


@dataclass(frozen=True)
class FigureComparison:
    """Figure of a benchmark, compared.

    Attributes:
        which: way of scoring, `official` or `ours`.
        name, definition: of the figure.
        usual: True for the one usually quoted.
        comparison: None where the two sides cannot be compared in this figure; `refused` says why.
    """

    which: str
    name: str
    definition: str
    usual: bool
    comparison: Comparison | None
    refused: str = ""


@dataclass(frozen=True)
class TaskComparison:
    """Benchmark, compared: a figure for each way of scoring that both evaluations have, or all figures.

    Attributes:
        task: its name.
        figures: by way of scoring, the one usually quoted first.
        left_out: why there is no figure; empty where there is one.
    """

    task: str
    figures: tuple[FigureComparison, ...]
    left_out: str = ""


@dataclass(frozen=True)
class _Evaluated:
    """Benchmark in a run folder."""

    model: str
    key: Key
    scores: TaskScores

    @property
    def settings(self) -> Key:
        """What both evaluations must have in common: the key of the replies but for the model, and the scoring."""
        scoring = {"rule": self.scores.rule, "judge": self.scores.judge, "grader": self.scores.grader}
        return Key((*(part for part in self.key.parts if part.name != MODEL), Part("scoring", scoring)))


def compare_runs(a: Path, b: Path, force: bool = False, every_figure: bool = False) -> list[TaskComparison]:
    """Compares the benchmarks of two run folders, by name; what one of them alone has is left out and said.

    Args:
        force: compares what does not agree, over the items that both have; the sentences say what differs.
        every_figure: all figures of each benchmark, not only the one usually quoted.

    Raises:
        UserError: a folder holds no evaluation, they have no benchmark in common, or settings or items differ, a line
            for each, with its dotted name.
    """
    names_a, names_b = scored_tasks(a), scored_tasks(b)
    common = sorted({*names_a} & {*names_b})
    if not common:
        raise UserError(f"no benchmark in common: {a} has {', '.join(names_a)}, {b} has {', '.join(names_b)}")
    pairs = {name: _told_apart(_evaluated(a, name), _evaluated(b, name)) for name in common}
    unlike = {name: _unlike(*pair) for name, pair in pairs.items()}
    if not force and any(unlike.values()):
        lines = (f"{names}: {line}" for line, names in _by_line(unlike).items())
        first = (
            f"{a} and {b} differ in more than the model; evaluate with the same settings "
            "(serving.settings_of=RUN gives a model those of a run), or force the comparison"
        )
        raise UserError("\n".join([first, *lines]))
    compared = [_compared(name, *pair, unlike[name], every_figure) for name, pair in pairs.items()]
    alone = sorted({*names_a} ^ {*names_b})
    missing = (TaskComparison(name, (), f"only {a if name in names_a else b} has it") for name in alone)
    return [*compared, *missing]


def _by_line(unlike: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Names of the benchmarks that differ in the same way, by the line that says how."""
    names: dict[str, list[str]] = {}
    for name, lines in unlike.items():
        for line in lines:
            names.setdefault(line, []).append(name)
    return {line: "all" if len(found) == len(unlike) > 1 else ", ".join(found) for line, found in names.items()}


def _evaluated(run: Path, name: str) -> _Evaluated:
    scores = read_scores(run, name)
    # a benchmark that scores another's replies has no records, unless it was asked by itself
    shared = TASKS[name].replies_of if name in TASKS else ""
    folder = run / (shared if shared and not (run / name / KEY_FILE).exists() else name)
    key = existing_store(folder).key
    if scores.key != key.digest:
        raise UserError(f"{run}: the scores of {name} are of other replies than {folder} holds; score the run again")
    return _Evaluated(model_name(key), key, scores)


def model_name(key: Key) -> str:
    """Name of the model of a key: its text, or its field `name`."""
    value: Json = next((part.value for part in key.parts if part.name == MODEL), None)
    name = value.get("name") if isinstance(value, Mapping) else value
    return visible(name) if isinstance(name, str) and name else "unnamed model"


def _told_apart(a: _Evaluated, b: _Evaluated) -> tuple[_Evaluated, _Evaluated]:
    if a.model != b.model:
        return a, b
    # one name for two, such as checkpoints of a run: sentences must say which is meant
    return replace(a, model=f"{a.model} (A)"), replace(b, model=f"{b.model} (B)")


def _unlike(a: _Evaluated, b: _Evaluated) -> tuple[str, ...]:
    return (*a.settings.changes_to(b.settings), *_items_unlike(a, b))


def _items_unlike(a: _Evaluated, b: _Evaluated) -> tuple[str, ...]:
    """Lines for items that one side alone has, and for those in another cluster or other strata."""
    mine, its = ({item.key: item for item in side.scores.items} for side in (a, b))
    found = []
    for side, only in ((a, mine.keys() - its.keys()), (b, its.keys() - mine.keys())):
        if only:
            found.append(f"items: {len(only)} that {side.model} alone has, such as {visible(min(only))}")
    for what in ("cluster", "strata"):
        moved = [key for key in mine.keys() & its.keys() if getattr(mine[key], what) != getattr(its[key], what)]
        if moved:
            found.append(f"items.{what}: {len(moved)} items have another, such as {visible(min(moved))}")
    return tuple(found)


def _compared(name: str, a: _Evaluated, b: _Evaluated, unlike: Sequence[str], every_figure: bool) -> TaskComparison:
    figures = TASKS[name].figures if name in TASKS else own_figures
    found: list[FigureComparison] = []
    for which in WAYS:
        sides = [valued(side.scores.items, side.scores.samples, which) for side in (a, b)]
        if all(sides):  # a side that was not scored in this way is empty
            left, right = _in_common(*sides)
            compared = _figures(figures, which, (a.model, left), (b.model, right), unlike)
            # a generator, since each comparison resamples: those not wanted are never made
            found += compared if every_figure else islice(compared, 1)
    return TaskComparison(
        name, tuple(found), "" if found else "there is no item that both have and both scored in one way"
    )


def _in_common(a: Sequence[ValuedItem], b: Sequence[ValuedItem]) -> tuple[list[ValuedItem], list[ValuedItem]]:
    """Items that both have, in the order, clusters and strata of A."""
    theirs = {item.key: item for item in b}
    left = [item for item in a if item.key in theirs]
    # one side's clusters for both, or a forced comparison could not be paired
    return left, [replace(theirs[item.key], mark=item.mark) for item in left]


def _figures(
    figures: Figures,
    which: str,
    a: tuple[str, list[ValuedItem]],
    b: tuple[str, list[ValuedItem]],
    unlike: Sequence[str],
) -> Iterator[FigureComparison]:
    """Figures one by one, the one usually quoted first."""
    whole = whole_clusters(a[1], b[1])
    sides = _sides(figures, *a, whole), _sides(figures, *b, whole)
    for place, (name, (figure, side)) in enumerate(sides[0].items()):
        found = FigureComparison(which, name, figure.definition, place == 0, None)
        try:
            yield replace(found, comparison=compare(side, sides[1][name][1], unlike=unlike))
        except UserError as error:  # a figure with too few clusters must not cost the others
            yield replace(found, refused=str(error))


def _sides(
    figures: Figures, model: str, items: list[ValuedItem], whole: Callable[[ValuedItem], bool]
) -> dict[str, tuple[Figure, Side]]:
    """Sides of a comparison by figure; `whole` holds for items of clusters that both measured."""
    measured = sums_of(figures, list(filter(whole, items)), counted_wrong)
    worst, best = sums_of(figures, items, counted_wrong), sums_of(figures, items, counted_right)
    missing = faults_of(items).total()

    def side(name: str, found: FigureSums) -> Side:
        # a figure of a part has no sums where none of its items was measured by both
        both = measured[name].sums if name in measured else ClusterSums(np.zeros(0), np.zeros(0))
        upper = best[name].sums if found.figure.rises else None
        # composites of several items, or those of a part, are fewer
        counted = "items" if round(float(found.sums.denominators.sum())) == len(items) else "cases"
        return Side(model, both, found.sums, upper, missing, counted)

    return {name: (found.figure, side(name, found)) for name, found in worst.items()}


# ---- text ----

_HEAD = ("benchmark", "figure", "scored", "A", "B", "A - B", "95 %", "bootstrap", "exact p", "over")


def lines(found: Sequence[TaskComparison]) -> list[str]:
    """Table of the comparisons, then a sentence for each, in percent and points of percent."""
    compared = [(task.task, figure) for task in found for figure in task.figures]
    rows = [_HEAD, *(_row(task, figure) for task, figure in compared)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    said = [f"{task}, {one.name}, {one.which}: {_sentence(one)}" for task, one in compared]
    left_out = [f"{task.task}: left out; {task.left_out}." for task in found if task.left_out]
    found_lines = [*(table if compared else []), *(["", *said] if said else []), *_several(compared), *left_out]
    return [visible(line) for line in found_lines]  # names of parts come from the benchmark's files


def _row(task: str, figure: FigureComparison) -> tuple[str, ...]:
    found = figure.comparison
    if found is None:
        return (task, figure.name, figure.which, *("-" for _ in _HEAD[3:]))
    numbers = (f"{100 * found.rate_a:.1f}", f"{100 * found.rate_b:.1f}", f"{100 * found.difference:+.1f}")
    intervals = (f"{100 * low:+.1f} to {100 * high:+.1f}" for low, high in (found.interval, found.bootstrap))
    over = f"{found.cases:,} {found.counted}"
    return (task, figure.name, figure.which, *numbers, *intervals, p_text(found.p.exact), over)


def _sentence(figure: FigureComparison) -> str:
    return figure.comparison.sentence if figure.comparison else f"not compared: {figure.refused}."


def _several(compared: Sequence[tuple[str, FigureComparison]]) -> list[str]:
    """Line on the number of tests, where there are several: one in twenty is seen where there is no difference."""
    values = [one.comparison.p.exact for _, one in compared if one.comparison is not None]
    if len(values) < 2:
        return []
    seen, adjusted = (sum(value <= LEVEL for value in tested) for tested in (values, holm(values)))
    return [
        f"Of {len(values)} differences {seen} are seen at 5 %, and {adjusted} after Holm's adjustment for their number."
    ]
