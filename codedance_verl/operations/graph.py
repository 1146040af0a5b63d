"""Graph of the operations of a session: edges along the data flow, those that are live, and their compositions."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from codedance_verl.operations.catalogue import Category
from codedance_verl.operations.values import NO_REFS, Refs

MOST_OPERATIONS = 400
"""Most operations of a session; code beyond adds none."""

MOST_CHAINS = 5_000
"""Most chains that are followed in a session."""


class Weak(Enum):
    """Operation that counts only where its result is not just a means of another operation."""

    NO = auto()  # it always counts
    PIXELS = auto()  # arithmetic on pixels, a channel: counts where it is shown as an image
    READING = auto()  # value of one pixel: not where it is only compared
    PLAIN = auto()  # plain arithmetic: not where it only places a box
    COMPARISON = auto()  # of plain numbers: where its result itself is shown


_IMAGE_TO_IMAGE = frozenset(
    (
        *(Category.CROP, Category.RESIZE, Category.ROTATE, Category.COLOUR, Category.FILTER),
        *(Category.DRAW, Category.GRID, Category.DISPLAY),
    )
)
_PLAIN = frozenset((Category.ARITHMETIC, Category.TABLES, Category.SEARCH, Category.DISPLAY))

_PASSED_BY = {
    Weak.PIXELS: _IMAGE_TO_IMAGE,
    Weak.READING: frozenset(Category) - {Category.THRESHOLD, Category.DIFFERENCE},
    Weak.PLAIN: _PLAIN,
    Weak.COMPARISON: _PLAIN,
}
"""Categories behind which a weak operation still counts; the others absorb it."""

_PASSED_BY_PLAIN_TEST = frozenset((Weak.PLAIN, Weak.READING))
"""Weak operations that count where only a test of plain values leads on to what is shown."""


@dataclass
class Node:
    """Operation as it is found.

    Attributes:
        call: dotted name of the call, or the pattern.
        turn: number of the cell.
        line: in the cell, from 1.
        inputs: refs of its operands and of what it changes.
        image: an operand derives from a given image.
    """

    category: Category
    call: str
    turn: int
    line: int
    weak: Weak = Weak.NO
    image: bool = False
    inputs: Refs = NO_REFS


@dataclass
class Graph:
    """Operations of a session, and the refs of what was shown."""

    nodes: list[Node] = field(default_factory=list)
    shown: Refs = NO_REFS
    touched: int = 0
    """Times that an operation on an image or a drawing was met."""
    _numbers: dict[tuple[int, int, Category, str], int] = field(default_factory=dict)

    def add(
        self, at: ast.AST, category: Category, call: str, turn: int, inputs: Refs, *, image: bool, weak: Weak = Weak.NO
    ) -> Refs:
        """Adds an operation at a node of a syntax tree, or further inputs of it; returns refs to it alone."""
        # met again in a loop or in another call of its function, it is still one operation
        key = (turn, id(at), category, call)
        number = self._numbers.get(key)
        if number is None:
            if len(self.nodes) >= MOST_OPERATIONS:
                # without the operation, but what derives from it keeps those before it alive
                return inputs
            number = self._numbers[key] = len(self.nodes)
            self.nodes.append(Node(category, call, turn, getattr(at, "lineno", 0), weak))
        node = self.nodes[number]
        node.inputs = node.inputs.union(inputs)
        node.image = node.image or image
        self.touched += category not in _PLAIN
        return Refs(frozenset((number,)))

    def show(self, refs: Refs) -> None:
        self.shown = self.shown.union(refs)

    def live(self) -> tuple[set[int], set[int]]:
        """Numbers of the operations that something shown derives from, and of those among them that are only means."""
        alive: set[int] = set()
        seen: set[tuple[int, frozenset[Weak]]] = set()
        everything = frozenset(_PASSED_BY)
        pending = list(_steps(self.shown, everything))
        while pending:
            step = pending.pop()
            if step in seen:
                continue
            seen.add(step)
            number, passing = step
            node = self.nodes[number]
            # A weak operation counts if one way from what is shown leads to it past no operation that absorbs it.
            if node.weak is Weak.NO or node.weak in passing:
                alive.add(number)
                # an operation that is absorbed itself absorbs nothing
                passing = frozenset(weak for weak in passing if node.category in _PASSED_BY[weak])
            pending += _steps(node.inputs, passing)
        reached = {number for number, _ in seen}
        alive -= self._means_of(alive)
        return alive, reached - alive

    def _means_of(self, alive: set[int]) -> set[int]:
        """Plain arithmetic that an operation on an image gets its numbers from: a means, even if they are printed."""
        found: set[int] = set()
        pending = [
            before
            for number in alive
            if self.nodes[number].category not in _PLAIN
            for before in self.nodes[number].inputs.data
        ]
        while pending:
            number = pending.pop()
            if number not in found and self.nodes[number].weak in (Weak.PLAIN, Weak.COMPARISON):
                found.add(number)
                pending += self.nodes[number].inputs.data
        return found

    def upstream(self, alive: Sequence[int]) -> dict[int, frozenset[int]]:
        """Nearest live operations before each live one along the data flow."""
        living = frozenset(alive)
        return {number: frozenset(self._nearest(number, living)) for number in alive}

    def _nearest(self, number: int, living: frozenset[int]) -> Iterator[int]:
        seen: set[int] = set()
        pending = list(self.nodes[number].inputs.data)
        while pending:
            before = pending.pop()
            # in a loop an operation may get what it made itself
            if before in seen or before == number:
                continue
            seen.add(before)
            if before in living:
                yield before
            else:
                pending += self.nodes[before].inputs.data


def _steps(refs: Refs, passing: frozenset[Weak]) -> Iterator[tuple[int, frozenset[Weak]]]:
    for number in refs.data:
        yield number, passing
    for number in refs.plain:
        yield number, passing & _PASSED_BY_PLAIN_TEST
    # an index or a test of image values absorbs everything that is weak
    for number in refs.chosen:
        yield number, frozenset()


def chains(before: dict[int, frozenset[int]], length: int) -> Iterator[tuple[int, ...]]:
    """Paths of that many different operations along the data flow, at most `MOST_CHAINS`."""
    found = 0
    # taken from the end, so that the earliest operations come first
    pending: list[tuple[int, ...]] = [(number,) for number in sorted(before, reverse=True)]
    while pending and found < MOST_CHAINS:
        path = pending.pop()
        if len(path) == length:
            found += 1
            yield path
            continue
        pending += [(earlier, *path) for earlier in before[path[0]] if earlier not in path]
