"""Analysis of the cells of a session: its live operations, their compositions, and cells that have none."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from codedance_verl.operations import calls, expressions, statements
from codedance_verl.operations.catalogue import Category
from codedance_verl.operations.graph import Graph, chains
from codedance_verl.operations.source import MOST_CHARACTERS, is_silenced, parse
from codedance_verl.operations.state import End, Frame, State, TooLarge

MOST_CELLS = 64
"""Cells of a session that are analysed."""

LONGEST_CHAIN = 3


class CellState(StrEnum):
    """State of a cell after the analysis."""

    ANALYSED = "analysed"
    NO_PYTHON = "no_python"  # it does not parse
    TOO_LARGE = "too_large"  # it was analysed in part, or not at all


@dataclass(frozen=True)
class Operation:
    """Live operation: something that was shown derives from it.

    Attributes:
        category: never `NONE`.
        call: dotted name of the call after resolution, or the name of a pattern.
        turn: number of the cell, from 0.
        line: in the cell, from 1.
        image: it works on what derives from the given image; false for plain arithmetic, or a drawing from nothing.
    """

    category: Category
    call: str
    turn: int
    line: int
    image: bool


@dataclass(frozen=True)
class Composition:
    """Operations along the data flow, the first one first; `across` where they lie in different cells."""

    categories: tuple[Category, ...]
    across: bool

    def __str__(self) -> str:
        return " > ".join(self.categories)


@dataclass(frozen=True)
class Analysis:
    """Analysis of a session.

    Attributes:
        operations: live ones, in the order in which they are met.
        means: operations of numbers or pixels that only serve another one, as the arithmetic of a box.
        dead: operations that were found, but nothing that was shown derives from them.
        compositions: pairs and chains of three, each once.
        cells: state of each cell.
    """

    operations: tuple[Operation, ...]
    means: tuple[Operation, ...]
    dead: tuple[Operation, ...]
    compositions: tuple[Composition, ...]
    cells: tuple[CellState, ...]

    @property
    def categories(self) -> frozenset[Category]:
        """Categories of the live operations; `NONE` alone where code was analysed and has none."""
        found = frozenset(operation.category for operation in self.operations)
        return found or (frozenset((Category.NONE,)) if CellState.ANALYSED in self.cells else frozenset())

    @property
    def calls(self) -> frozenset[str]:
        """Resolved calls of the live operations."""
        return frozenset(operation.call for operation in self.operations)

    def idle(self) -> tuple[int, ...]:
        """Numbers of the analysed cells without a live operation."""
        busy = {operation.turn for operation in self.operations}
        return tuple(turn for turn, cell in enumerate(self.cells) if cell is CellState.ANALYSED and turn not in busy)


def analyse(cells: Sequence[str], ran: Sequence[bool] | None = None) -> Analysis:
    """Analyses the cells of one session, in order; nothing is run.

    `ran`: whether each cell ran to its end. Operations of one that did not are dead; the names that it binds are
    taken as bound.
    """
    state = State(expressions.evaluate, statements.run, calls.call)
    state.names = state.given_names()
    states = [_cell(state, turn, code) for turn, code in enumerate(cells[:MOST_CELLS])]
    states += [CellState.TOO_LARGE] * (len(cells) - len(states))
    failed = frozenset(turn for turn, done in enumerate(ran or ()) if not done)
    return _result(state.graph, tuple(states), failed)


def _cell(state: State, turn: int, code: str) -> CellState:
    tree = parse(code)
    if tree is None:
        return CellState.NO_PYTHON if len(code) <= MOST_CHARACTERS else CellState.TOO_LARGE
    state.trees.append(tree)
    state.turn, state.steps, state.depth = turn, 0, 0
    state.frames, state.tests, state.loops = [Frame((state.names,))], [], []
    try:
        _run(state, tree, code)
    except (TooLarge, RecursionError):
        return CellState.TOO_LARGE
    finally:
        # Figures that are still open are shown when a cell ends, however it ends.
        state.tests = []
        state.show_figures()
    return CellState.ANALYSED


def _run(state: State, tree: ast.Module, code: str) -> None:
    last = tree.body[-1] if tree.body else None
    if not isinstance(last, ast.Expr) or is_silenced(code, last.value):
        state.run(state, tree.body)
        return
    # the value of a trailing expression is shown, if the cell comes that far
    if state.run(state, tree.body[:-1]) is End.PLAIN:
        state.show(state.evaluate(state, last.value))


def _result(graph: Graph, cells: tuple[CellState, ...], failed: frozenset[int]) -> Analysis:
    ran = {number for number, node in enumerate(graph.nodes) if node.turn not in failed}
    living, serving = graph.live()
    alive = sorted(living & ran)
    means = sorted(serving & ran)
    dead = [number for number in range(len(graph.nodes)) if number not in {*alive, *means}]
    return Analysis(
        tuple(_operation(graph, number) for number in alive),
        tuple(_operation(graph, number) for number in means),
        tuple(_operation(graph, number) for number in dead),
        _compositions(graph, alive),
        cells,
    )


def _operation(graph: Graph, number: int) -> Operation:
    node = graph.nodes[number]
    return Operation(node.category, node.call, node.turn, node.line, node.image)


def _compositions(graph: Graph, alive: Sequence[int]) -> tuple[Composition, ...]:
    before = graph.upstream(alive)
    found: dict[Composition, None] = {}
    for length in range(2, LONGEST_CHAIN + 1):
        for path in chains(before, length):
            nodes = [graph.nodes[number] for number in path]
            found[Composition(tuple(node.category for node in nodes), len({node.turn for node in nodes}) > 1)] = None
    return tuple(found)
