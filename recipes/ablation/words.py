"""Comparison in words: tables in Markdown, and sentences on which methods are separated and which are not."""

from __future__ import annotations

from collections.abc import Sequence

from codedance_verl.statistics.crossed_intervals import Estimate
from recipes.ablation.columns import COMPARED, HEADLINE, KIND_TABLES, UNDEMONSTRATED, Column
from recipes.ablation.comparison import MIN_SEEDS, Comparison, Pair, Row, groups, seeds_needed, separated
from recipes.ablation.variants import OURS, VARIANTS

_START_TITLE = "before RL"
_DEPENDABLE_SEEDS = 5


def markdown(comparison: Comparison) -> str:
    """The whole text of `ablation.md`."""
    parts = [_basis(comparison)]
    if comparison.rows:
        parts += [_headline(comparison), *_kind_tables(comparison), separation(comparison)]
    if comparison.missing:
        parts.append(_so_far(comparison))
    return "\n\n".join(parts) + "\n"


def separation(comparison: Comparison) -> str:
    """Sentences on every column: which methods are separated, or why none are; and how `robust` does."""
    if len(comparison.seeds) < MIN_SEEDS:
        return f"Separation: not judged, as it takes {MIN_SEEDS} seeds that all methods have."
    lines = ["Methods are separated where their intervals do not overlap; of three or more, where no two overlap.", ""]
    lines += [f"- {_separation_of(comparison, column)}" for column in COMPARED]
    return "\n".join([*lines, "", verdict(comparison)])


def verdict(comparison: Comparison) -> str:
    """One plain sentence on how `robust` compares with the best of the others in greedy accuracy on hard questions."""
    column = HEADLINE[0]
    values = _values(comparison.rows, column)
    others = {name: value for name, value in values.items() if name != OURS}
    if OURS not in values or not others:
        return f"`{OURS}` is not compared."
    best = max(others, key=others.__getitem__)
    gap = values[OURS] - others[best]
    if gap <= 0:
        return f"`{OURS}` does not win: `{best}` is {-gap:.1%} ahead in {column.title}."
    pair = next(
        (pair for pair in comparison.pairs.get(column.name, ()) if {pair.first, pair.second} == {OURS, best}), None
    )
    apart = pair is not None and pair.apart
    beyond = "their intervals do not overlap" if apart else "their intervals overlap, so this may be chance"
    return f"`{OURS}` is {gap:.1%} ahead of the next, `{best}`, in {column.title}; {beyond}."


def difference_text(estimate: Estimate) -> str:
    """A difference with its interval, in points."""
    return f"{100 * estimate.value:+.1f} points, {100 * estimate.low:+.1f} to {100 * estimate.high:+.1f}"


def _basis(comparison: Comparison) -> str:
    models = "the same SFT model" if comparison.models == 1 else f"{comparison.models} SFT models"
    number = len(comparison.seeds)
    if not number:
        return f"No seed has been run with every method so far. {comparison.steps} steps each, from {models}."
    seeds = f"{number} seed{'s' if number > 1 else ''} ({', '.join(map(str, comparison.seeds))})"
    text = f"{seeds}; {comparison.steps} steps each, from {models}. 95 % intervals over "
    if number == 1:
        return f"{text}questions; of one seed, they do not say how much another one differs."
    few = "" if number >= _DEPENDABLE_SEEDS else f" From fewer than {_DEPENDABLE_SEEDS} seeds they are too narrow."
    return f"{text}seeds and questions.{few}"


def _headline(comparison: Comparison) -> str:
    letters = {column.name: groups(comparison.rows, column.name) for column in HEADLINE} if comparison.pairs else {}
    lines = _head(["variant", *(column.title for column in HEADLINE)])
    for row in _all_rows(comparison):
        cells = [_cell(row, column.name, letters.get(column.name, {}).get(row.name, "")) for column in HEADLINE]
        lines.append(_line([_title(row), *cells]))
    if letters:
        lines += ["", "Methods that share a letter in a column are not separated there: their intervals overlap."]
    return "\n".join(lines)


def _kind_tables(comparison: Comparison) -> list[str]:
    tables = []
    for table in KIND_TABLES:
        discovered = table.name == "greedy" and UNDEMONSTRATED in comparison.kinds
        further = [f"seeds that found code for {UNDEMONSTRATED}"] if discovered else []
        lines = [f"{table.title}:", "", *_head(["variant", *comparison.kinds, *further])]
        for row in _all_rows(comparison):
            cells = [_cell(row, table.column(kind).name) for kind in comparison.kinds]
            count = [f"{sum(bool(found) for found in row.found)} of {len(row.found)}"] if discovered else []
            lines.append(_line([f"`{row.name}`" if row is not comparison.start else _START_TITLE, *cells, *count]))
        tables.append("\n".join(lines))
    return tables


def _separation_of(comparison: Comparison, column: Column) -> str:
    pairs, values = comparison.pairs[column.name], _values(comparison.rows, column)
    if len(values) < 2 or not pairs:
        return f"**{column.title}**: not measured for two methods."
    apart, ordered = [pair for pair in pairs if pair.apart], separated(comparison.rows, column.name)
    if not apart:
        return f"**{column.title}**: no two methods are separated. {_why_not(comparison, column, pairs)}"
    names = " > ".join(f"`{name}` {values[name]:.1%}" for name in ordered)
    text = f"**{column.title}**: {len(ordered)} methods are separated ({names}). Pairs that are: {_pair_texts(apart)}."
    more = [pair for pair in pairs if not pair.apart and pair.p_value < 0.05]
    if more:
        text += f" Further pairs differ when questions are paired (Holm over {len(pairs)} pairs): {_pair_texts(more)}."
    return text


def _why_not(comparison: Comparison, column: Column, pairs: Sequence[Pair]) -> str:
    """The largest difference of a column, what it is uncertain by, and how many seeds would make it certain."""
    widest = max(pairs, key=lambda pair: pair.difference.value)
    spread, needed = widest.difference.spread, seeds_needed(comparison.rows, widest, column.name, len(comparison.seeds))
    text = f"Furthest apart are `{widest.first}` and `{widest.second}` ({difference_text(widest.difference)})."
    if spread.total > 0:
        text += f" Seeds make {min(1.0, spread.seeds / spread.total):.0%} of the variance of that difference;"
        text += (
            f" about {needed} seeds would separate them." if needed else " more seeds alone would not separate them."
        )
    certain = [pair for pair in pairs if pair.p_value < 0.05]
    if certain:
        text += f" Paired by question, these differ (Holm over {len(pairs)} pairs): {_pair_texts(certain)}."
    return text


def _pair_texts(pairs: Sequence[Pair]) -> str:
    """The pairs by their first method, the largest difference first."""
    largest = sorted(pairs, key=lambda pair: -pair.difference.value)
    return "; ".join(f"`{pair.first}` over `{pair.second}` ({difference_text(pair.difference)})" for pair in largest)


def _so_far(comparison: Comparison) -> str:
    """Every run there is, seed by seed: what is compared above leaves out the seeds that not all methods have."""
    missing, total = len(comparison.missing), sum(len(runs) for runs in comparison.runs.values())
    shown = (HEADLINE[0], HEADLINE[2])
    lines = [f"So far {total} of {total + missing} runs have ended:", ""]
    lines += _head(["variant", "seed", *(column.title for column in shown), f"found code for {UNDEMONSTRATED}"])
    for name, runs in comparison.runs.items():
        for seed, run in sorted(runs.items()):
            values = [run.values[column.name] for column in shown]
            texts = ["n/a" if value is None else f"{value:.1%}" for value in values]
            lines.append(_line([f"`{name}`", str(seed), *texts, {True: "yes", False: "no", None: "n/a"}[run.found]]))
    return "\n".join(lines)


def _all_rows(comparison: Comparison) -> list[Row]:
    return [*([comparison.start] if comparison.start else []), *comparison.rows]


def _title(row: Row) -> str:
    titles = {variant.name: variant.title for variant in VARIANTS}
    return f"`{row.name}`, {titles[row.name]}" if row.name in titles else _START_TITLE


def _cell(row: Row, column: str, letters: str = "") -> str:
    estimate = row.cells[column].estimate
    if estimate is None:
        return "n/a"
    text = f"{estimate.value:.1%} ({estimate.low:.1%} to {estimate.high:.1%})"
    return f"{text} {letters}" if letters else text


def _values(rows: Sequence[Row], column: Column) -> dict[str, float]:
    return {row.name: item.value for row in rows if (item := row.cells[column.name].estimate) is not None}


def _head(titles: Sequence[str]) -> list[str]:
    return [_line(titles), f"|{'---|' * len(titles)}"]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
