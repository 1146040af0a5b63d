"""Novelty of rollouts against demonstrations: categories, calls and compositions that none of these has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from codedance_verl.operations.analysis import Analysis, CellState
from codedance_verl.operations.catalogue import Category
from codedance_verl.operations.rates import Rate, rate

_MOST_NAMED = 50
"""Names that a report lists of each kind, the most frequent first."""


@dataclass(frozen=True)
class Repertoire:
    """What a set of sessions uses: categories, resolved calls and compositions of its live operations."""

    categories: frozenset[Category] = frozenset()
    calls: frozenset[str] = frozenset()
    compositions: frozenset[tuple[Category, ...]] = frozenset()


def repertoire(sessions: Iterable[Analysis]) -> Repertoire:
    """Repertoire of these sessions together."""
    categories: set[Category] = set()
    calls: set[str] = set()
    compositions: set[tuple[Category, ...]] = set()
    for session in sessions:
        categories |= session.categories - {Category.NONE}
        calls |= session.calls
        compositions |= {found.categories for found in session.compositions}
    return Repertoire(frozenset(categories), frozenset(calls), frozenset(compositions))


@dataclass(frozen=True)
class New:
    """What one rollout has that the demonstrations have not."""

    categories: frozenset[Category]
    calls: frozenset[str]
    compositions: frozenset[tuple[Category, ...]]

    def __bool__(self) -> bool:
        return bool(self.categories or self.calls or self.compositions)


def new_in(session: Analysis, known: Repertoire) -> New:
    """Categories, calls and compositions of a session outside of a repertoire."""
    return New(
        session.categories - known.categories - {Category.NONE},
        session.calls - known.calls,
        frozenset(found.categories for found in session.compositions) - known.compositions,
    )


@dataclass(frozen=True)
class Novelty:
    """Rollouts with something new, per 1,000; names by the number of rollouts that have them, the most frequent first.

    Attributes:
        any: a rollout with any of the three.
        composition_of_known: a new composition, of categories that the demonstrations all have.
        across_turns: a new composition whose operations lie in different cells.
    """

    rollouts: int
    any: Rate
    category: Rate
    call: Rate
    composition: Rate
    composition_of_known: Rate
    across_turns: Rate
    categories: Mapping[str, int]
    calls: Mapping[str, int]
    compositions: Mapping[str, int]


@dataclass
class _Counts:
    any: int = 0
    category: int = 0
    call: int = 0
    composition: int = 0
    composition_of_known: int = 0
    across_turns: int = 0
    names: dict[str, Counter[str]] = field(
        default_factory=lambda: {name: Counter() for name in ("categories", "calls", "compositions")}
    )


def novelty(sessions: Sequence[Analysis], known: Repertoire) -> Novelty:
    """Novelty of rollouts against a repertoire. Raises ValueError for no rollouts."""
    counts = _Counts()
    for session in sessions:
        new = new_in(session, known)
        counts.any += bool(new)
        counts.category += bool(new.categories)
        counts.call += bool(new.calls)
        counts.composition += bool(new.compositions)
        counts.composition_of_known += any(known.categories.issuperset(found) for found in new.compositions)
        counts.across_turns += any(
            found.across and found.categories in new.compositions for found in session.compositions
        )
        counts.names["categories"].update(map(str, new.categories))
        counts.names["calls"].update(new.calls)
        counts.names["compositions"].update(" > ".join(found) for found in new.compositions)
    total = len(sessions)
    return Novelty(
        total,
        any=rate(counts.any, total),
        category=rate(counts.category, total),
        call=rate(counts.call, total),
        composition=rate(counts.composition, total),
        composition_of_known=rate(counts.composition_of_known, total),
        across_turns=rate(counts.across_turns, total),
        categories=_ranked(counts.names["categories"]),
        calls=_ranked(counts.names["calls"]),
        compositions=_ranked(counts.names["compositions"]),
    )


def _ranked(names: Counter[str]) -> dict[str, int]:
    # by name among equals, so that two reports have the same order
    return dict(sorted(names.items(), key=lambda item: (-item[1], item[0]))[:_MOST_NAMED])


@dataclass(frozen=True)
class Usage:
    """Operations of a set of rollouts: those that have each category, per 1,000, and what could not be analysed.

    Attributes:
        categories: rollouts by category; `none` are those that ran code without any operation.
        on_image: rollouts with an operation on what derives from the image.
        dead: rollouts with an operation from which nothing shown derives.
        compositions: rollouts by composition, the most frequent first.
        cells: all cells.
        idle_cells: cells without a live operation.
        no_python: cells that do not parse.
        too_large: cells beyond the bounds of the analysis.
    """

    rollouts: int
    with_code: Rate
    categories: Mapping[str, Rate]
    on_image: Rate
    dead: Rate
    compositions: Mapping[str, int]
    cells: int
    idle_cells: int
    no_python: int
    too_large: int


def usage(sessions: Sequence[Analysis]) -> Usage:
    """Usage of operations. Raises ValueError for no rollouts."""
    total = len(sessions)
    with_code = [session for session in sessions if session.cells]
    found = Counter(category for session in with_code for category in session.categories)
    states = Counter(cell for session in with_code for cell in session.cells)
    compositions = Counter(
        name for session in with_code for name in {str(composition) for composition in session.compositions}
    )
    return Usage(
        rollouts=total,
        with_code=rate(len(with_code), total),
        categories={str(category): rate(found[category], total) for category in Category},
        on_image=rate(sum(any(item.image for item in session.operations) for session in sessions), total),
        dead=rate(sum(bool(session.dead) for session in sessions), total),
        compositions=_ranked(compositions),
        cells=sum(states.values()),
        idle_cells=sum(len(session.idle()) for session in with_code),
        no_python=states[CellState.NO_PYTHON],
        too_large=states[CellState.TOO_LARGE],
    )
