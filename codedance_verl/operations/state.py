"""State of an analysis: scopes of names, tests that decide on what runs, figures, files, and its bounds."""

from __future__ import annotations

import ast
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum, auto

from codedance_verl.operations.catalogue import Category, Kind
from codedance_verl.operations.graph import Graph, Weak
from codedance_verl.operations.source import parse
from codedance_verl.operations.values import NO_REFS, Function, Refs, Value, all_refs, from_image, listed

MOST_STEPS = 20_000
"""Nodes of syntax trees that are evaluated in a cell; a loop over 16 elements counts each pass."""

MOST_DEPTH = 180
"""Levels of calls, blocks and expressions within one another."""

MOST_SECONDS = 5.0
"""CPU seconds of a session; the steps of a cell end nearly all of them long before."""

MOST_NAMES = 5_000

MOST_ALIASES = 50
"""Most values that a change of one is passed on to."""


class TooLarge(Exception):
    """A cell beyond the bounds of an analysis."""


class End(Enum):
    """End of a block of statements."""

    PLAIN = auto()
    LOOP = auto()  # by `break` or `continue`
    CALL = auto()  # by `return`, an exception or `exit()`


Scope = dict[str, Value]


@dataclass
class Frame:
    """Call of a function of the code, or a cell.

    Attributes:
        scopes: those that it sees, its own last.
        returned, yielded: values that it gives.
        elsewhere: scopes of the names that it declares global or nonlocal.
    """

    scopes: tuple[Scope, ...]
    function: Function | None = None
    returned: list[Value] = field(default_factory=list)
    yielded: list[Value] = field(default_factory=list)
    elsewhere: dict[str, Scope] = field(default_factory=dict)


@dataclass
class State:
    """State of an analysis of a session.

    `evaluate`, `run` and `call` are set by `analysis.py`: expressions call functions, whose bodies are statements.
    """

    evaluate: Callable[[State, ast.expr], Value]
    run: Callable[[State, Sequence[ast.stmt]], End]
    call: Callable[[State, ast.AST, Value, Sequence[Value], Mapping[str, Value]], Value]
    graph: Graph = field(default_factory=Graph)
    names: Scope = field(default_factory=dict)
    stars: list[str] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)
    tests: list[Refs] = field(default_factory=list)
    loops: list[Value] = field(default_factory=list)
    files: dict[str, Value] = field(default_factory=dict)
    figures: list[Value] = field(default_factory=list)
    trees: list[ast.AST] = field(default_factory=list)
    """Every tree is kept: operations are told apart by the identity of their nodes."""
    texts: dict[str, ast.Module | None] = field(default_factory=dict)
    turn: int = 0
    # CPU time of this thread, so that a busy machine does not change what is found
    deadline: float = field(default_factory=lambda: time.thread_time() + MOST_SECONDS)
    steps: int = 0
    depth: int = 0

    def tree_of(self, text: str) -> ast.Module | None:
        """Syntax tree of code in a string that is run."""
        if text not in self.texts:
            self.texts[text] = parse(text)
        return self.texts[text]

    def step(self, count: int = 1) -> None:
        """Counts an evaluated node, or work that costs as much as several. Raises TooLarge."""
        self.steps += count
        if self.steps > MOST_STEPS:
            raise TooLarge(f"more than {MOST_STEPS:,} steps")
        # not at each step: the CPU time of a thread is a system call
        if self.steps % 64 == 0 and time.thread_time() > self.deadline:
            raise TooLarge(f"more than {MOST_SECONDS:g} s")

    @contextmanager
    def deeper(self) -> Iterator[None]:
        """Raises TooLarge."""
        self.depth += 1
        try:
            if self.depth > MOST_DEPTH:
                raise TooLarge(f"more than {MOST_DEPTH} levels")
            yield
        finally:
            self.depth -= 1

    @property
    def frame(self) -> Frame:
        return self.frames[-1]

    def control(self) -> Refs:
        """Refs of all tests that decide on what runs now."""
        found = NO_REFS
        for refs in self.tests:
            found = found.union(refs)
        return found

    @contextmanager
    def decided_by(self, *values: Value, refs: Refs = NO_REFS) -> Iterator[None]:
        """Block that a test of these values decides on."""
        plain = not any(from_image(value) for value in values)
        self.tests.append(all_refs(*values).as_test(plain).union(refs))
        try:
            yield
        finally:
            self.tests.pop()

    def find(self, name: str) -> Value | None:
        """Value of a name; None where it is bound nowhere."""
        for scope in reversed(self.frame.scopes):
            if name in scope:
                return scope[name]
        return None

    def bind(self, name: str, value: Value) -> None:
        scope = self.frame.elsewhere.get(name, self.frame.scopes[-1])
        if len(scope) >= MOST_NAMES and name not in scope:
            raise TooLarge(f"more than {MOST_NAMES:,} names")
        scope[name] = value.under(self.control()) if self.tests else value

    def unbind(self, name: str) -> None:
        for scope in reversed(self.frame.scopes):
            if scope.pop(name, None) is not None:
                return

    def operation(
        self, at: ast.AST, category: Category, call: str, *operands: Value, weak: Weak = Weak.NO, refs: Refs = NO_REFS
    ) -> Refs:
        """Adds an operation on these operands; returns refs to it."""
        image = any(from_image(value) for value in operands)
        inputs = all_refs(*operands).union(refs).union(self.control() if self.tests else NO_REFS)
        return self.graph.add(at, category, call, self.turn, inputs, image=image, weak=weak)

    def change(self, value: Value, refs: Refs, *, image: bool = False) -> None:
        """A value was changed by the operation of `refs`, which has what it was before among its inputs."""
        # a graph that is full returns the inputs in place of a new operation, and they may be several
        number = next(iter(refs.data)) if len(refs.data) == 1 else None
        for part in _changed_with(value):
            if number is not None and part is not value:
                self.graph.nodes[number].inputs = self.graph.nodes[number].inputs.union(part.refs)
            part.refs, part.image = refs, part.image or image

    def taint(self, value: Value, *sources: Value) -> None:
        """A value was changed by something that is no operation, from these."""
        refs = all_refs(*sources).union(self.control())
        image = any(from_image(source) for source in sources)
        for part in _changed_with(value):
            part.refs, part.image = part.refs.union(refs), part.image or image

    def show(self, *values: Value) -> None:
        """Values are shown to the reader of the cell's output."""
        self.graph.show(all_refs(*values).union(self.control()))

    # Figures of pyplot: the last is the current one.

    def figure(self) -> Value:
        if not self.figures:
            self.figures.append(Value(Kind.FIGURE))
        return self.figures[-1]

    def new_figure(self) -> Value:
        self.figures.append(Value(Kind.FIGURE))
        return self.figures[-1]

    def show_figures(self) -> None:
        for figure in self.figures:
            self.show(figure)
        self.figures.clear()

    def given_names(self) -> Scope:
        """Names of a new session: the images that were given, as many as are told apart."""
        images = [Value(Kind.IMAGE, image=True) for _ in range(4)]
        several = listed(images, exact=True)
        return {"input_image": images[0], "input_images": several}


def _changed_with(value: Value) -> list[Value]:
    """A value and all that change with it."""
    found = [value]
    for part in found:
        found += [target for target in part.targets if all(target is not other for other in found)]
        if len(found) > MOST_ALIASES:
            break
    return found
