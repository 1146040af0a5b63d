"""Facts of a call's code by its syntax tree: what it reads, what it computes, which constants it prints."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from codedance_verl.harness.altered_images import Box
from codedance_verl.operations.analysis import Analysis, Operation, analyse
from codedance_verl.operations.catalogue import Category
from codedance_verl.operations.source import parse

_COMPUTES = frozenset((Category.ARITHMETIC, Category.TABLES, Category.SEARCH))
_CHOICES = (ast.If, ast.IfExp, ast.While, ast.Compare, ast.Dict, ast.Subscript, ast.List, ast.Tuple, ast.Set, ast.Match)
"""Nodes below which a constant is one of several, chosen by what the code finds."""

_TAKE_APART = ("split", "rsplit", "splitlines", "partition", "rpartition")
"""Methods of a text that make a container of its parts."""

_MOST_BOXES = 16


@dataclass(frozen=True)
class CodeFacts:
    """Facts of the code of a call.

    Attributes:
        reads_image: an operation of it, live or not, works on what derives from the image's pixels.
        computes: it shows the result of arithmetic, of a search, or of collected numbers.
        constants: literals that stand in it unconditionally, one a line.
        boxes: regions of an image that it crops or slices by constants, in pixels.
    """

    reads_image: bool
    computes: bool
    constants: str
    boxes: tuple[Box, ...]


def facts_of(cells: Sequence[str], ran: Sequence[bool]) -> list[CodeFacts]:
    """Facts of each cell of a session; `ran` says which ran to their end. Nothing is run."""
    analysis = analyse(cells, ran)
    known: dict[str, int] = {}  # shared: a later cell may crop by names that an earlier one has bound
    return [_facts(analysis, place, code, known) for place, code in enumerate(cells)]


def imports_of(code: str) -> str | None:
    """The cell without all that is no import or definition of a function or class; None where these nest too deep."""
    tree = parse(code)
    kept = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    body: list[ast.stmt] = [node for node in tree.body if isinstance(node, kept)] if tree is not None else []
    try:
        return ast.unparse(ast.Module(body, []))
    except RecursionError:  # `unparse` recurses in Python, where the parser nests deeper
        return None


def _facts(analysis: Analysis, place: int, code: str, known: dict[str, int]) -> CodeFacts:
    found: Iterator[Operation] = itertools.chain(analysis.operations, analysis.means, analysis.dead)
    reads = any(operation.image for operation in found if operation.turn == place)
    # without the dead ones: nothing of theirs is shown
    computes = any(
        operation.category in _COMPUTES
        for operation in (*analysis.operations, *analysis.means)
        if operation.turn == place
    )
    tree = parse(code)
    if tree is None:
        return CodeFacts(reads, computes, "", ())
    try:
        constants = "\n".join(dict.fromkeys(_constants(tree)))
        boxes = tuple(dict.fromkeys(_boxes(tree, known)))
    except RecursionError:  # too deep for the walk over constants; what the analysis says still holds
        return CodeFacts(reads, computes, "", ())
    return CodeFacts(reads, computes, constants, boxes[:_MOST_BOXES])


def _constants(node: ast.AST) -> Iterator[str]:
    """Constants that stand outside of tests and containers: arguments, parts of formatted texts, assigned values."""
    if (
        isinstance(node, ast.Constant)
        and isinstance(node.value, str | int | float)
        and not isinstance(node.value, bool)  # a flag such as `keepdims=True` states nothing
    ):
        yield str(node.value)
    if not isinstance(node, _CHOICES):
        for child in ast.iter_child_nodes(node):
            if not _is_split(child):
                yield from _constants(child)


def _is_split(node: ast.AST) -> bool:
    """True for a text that the code takes apart where it stands: `'red green'.split()` is a list of choices."""
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in _TAKE_APART
        and isinstance(node.func.value, ast.Constant)
    )


# ---- boxes ----


def _boxes(tree: ast.Module, known: dict[str, int]) -> Iterator[Box]:
    tuples: dict[str, Sequence[ast.expr]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            _remember(node, known, tuples)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "crop":
            yield from _box(_corners(node, tuples), known)
        elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Tuple) and len(node.slice.elts) >= 2:
            rows, columns = node.slice.elts[:2]  # an array has rows first, a box columns
            if isinstance(rows, ast.Slice) and isinstance(columns, ast.Slice):
                yield from _box((columns.lower, rows.lower, columns.upper, rows.upper), known)


def _remember(node: ast.Assign, known: dict[str, int], tuples: dict[str, Sequence[ast.expr]]) -> None:
    """Takes up names that are bound to whole numbers, or to four values."""
    for target in node.targets:
        if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
            # a starred target, or code that fails when it runs, has other lengths
            pairs = list(zip(target.elts, node.value.elts, strict=False))
        else:
            pairs = [(target, node.value)]
        for name, value in pairs:
            if not isinstance(name, ast.Name):
                continue
            if isinstance(value, ast.Tuple | ast.List):
                tuples[name.id] = value.elts
            elif (number := _whole(value, known)) is not None:
                known[name.id] = number


def _corners(call: ast.Call, tuples: Mapping[str, Sequence[ast.expr]]) -> Sequence[ast.expr | None]:
    box = call.args[0] if call.args else next((word.value for word in call.keywords if word.arg == "box"), None)
    if isinstance(box, ast.Name):
        return tuples.get(box.id, ())
    return box.elts if isinstance(box, ast.Tuple | ast.List) else ()


def _box(edges: Sequence[ast.expr | None], known: Mapping[str, int]) -> Iterator[Box]:
    numbers = [number for edge in edges if edge is not None and (number := _whole(edge, known)) is not None]
    # an edge that is open or computed leaves the region unknown
    if len(edges) == len(numbers) == 4:
        left, top, right, bottom = numbers
        # a negative edge counts from the end in an array, and lies outside of the image in Pillow
        if 0 <= left < right and 0 <= top < bottom:
            yield left, top, right, bottom


def _whole(node: ast.expr, known: Mapping[str, int]) -> int | None:
    if isinstance(node, ast.Name):
        return known.get(node.id)
    # the bound also keeps out infinity (`1e999`), which `int` refuses
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and abs(node.value) < 1e6:
        return int(node.value)
    return None
