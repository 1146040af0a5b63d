"""Operators, slices and assignments: on pixels they are operations of the catalogue, on numbers arithmetic."""

from __future__ import annotations

import ast
from collections.abc import Sequence

from codedance_verl.operations.catalogue import ARRAYS, Category, Kind
from codedance_verl.operations.containers import store
from codedance_verl.operations.graph import Weak
from codedance_verl.operations.state import State
from codedance_verl.operations.values import (
    MOST_ITEMS,
    Value,
    all_refs,
    axes_at,
    derived,
    element,
    from_image,
    joined,
)

ADD: ast.operator = ast.Add()
SUBTRACT: ast.operator = ast.Sub()

_SQUARE = frozenset((Kind.PIXELS, Kind.MASK, Kind.LABELS, Kind.SCORES))
"""Kinds with rows and columns."""

_NUMBERS = frozenset((Kind.NUMBER, Kind.SERIES, Kind.FRAME, Kind.COORDINATES, Kind.PROFILE, Kind.PIXEL))
_GRIDS = frozenset(("numpy.ogrid", "numpy.mgrid", "numpy.r_", "numpy.c_"))
_HELD = frozenset((Kind.AXES, Kind.IMAGE, Kind.LIST, Kind.DICT, Kind.STRING))
_BITWISE = (ast.BitAnd, ast.BitOr, ast.BitXor)


def binary(state: State, node: ast.AST, operator: ast.operator, left: Value, right: Value) -> Value:
    """Value of an operator with two operands."""
    name = type(operator).__name__.lower()
    operands = (left, right)
    images = [value for value in operands if value.kind in (Kind.PIXELS, Kind.MASK, Kind.LABELS, Kind.SCORES)]
    if images and isinstance(operator, _BITWISE):
        return derived(Kind.MASK, *operands)
    # two channels are no two pictures: red less green is a colour, no difference
    if len(images) == 2 and not all(value.part for value in images):
        return _of_two_images(state, node, operator, left, right)
    # A mask times 255 is a mask, an image times a mask the image that is left.
    if images and any(value.kind is Kind.MASK for value in images):
        kind = Kind.PIXELS if any(value.kind is Kind.PIXELS for value in images) else Kind.MASK
        return derived(kind, *operands)
    return elementwise(state, node, f"operator.{name}", operands)


def _of_two_images(state: State, node: ast.AST, operator: ast.operator, left: Value, right: Value) -> Value:
    masks = [value.kind for value in (left, right)].count(Kind.MASK)
    if isinstance(operator, ast.Sub):
        refs = state.operation(node, Category.DIFFERENCE, "array subtraction", left, right)
        return derived(Kind.PIXELS, left, right, refs=refs)
    if isinstance(operator, ast.Add) and not masks:
        refs = state.operation(node, Category.GRID, "array addition", left, right)
        return derived(Kind.PIXELS, left, right, refs=refs)
    return derived(Kind.MASK if masks == 2 else Kind.PIXELS, left, right)


def elementwise(state: State, node: ast.AST, call: str, operands: Sequence[Value]) -> Value:
    """Value of arithmetic element by element: of pixels it is a change of colour, of numbers arithmetic."""
    kinds = {value.kind for value in operands}
    squares = [value for value in operands if value.kind in _SQUARE]
    if squares:
        if all(value.kind is Kind.SCORES for value in squares):
            return derived(Kind.SCORES, *operands)
        refs = state.operation(node, Category.COLOUR, call, *operands, weak=Weak.PIXELS)
        return derived(squares[0].kind, *operands, refs=refs, part=any(value.part for value in squares))
    if Kind.STRING in kinds:
        return derived(Kind.STRING, *operands)
    if kinds & {Kind.LIST, Kind.DICT} and Kind.SERIES not in kinds and Kind.FRAME not in kinds:
        return _of_lists(operands)
    if not kinds & _NUMBERS:
        return derived(Kind.UNKNOWN, *operands)
    if Kind.FRAME in kinds:
        # Arithmetic on columns belongs to the table.
        return derived(Kind.FRAME, *operands)
    if any(value.path.startswith("sympy") for value in operands):
        kind = Kind.NUMBER
    else:
        order = (Kind.COORDINATES, Kind.PROFILE, Kind.SERIES)
        kind = next((kind for kind in order if kind in kinds), Kind.NUMBER)
    refs = state.operation(node, Category.ARITHMETIC, call, *operands, weak=Weak.PLAIN)
    found = derived(kind, *operands, refs=refs)
    found.series = any(value.series for value in operands)
    return found


def _of_lists(operands: Sequence[Value]) -> Value:
    """Sum or product of lists."""
    found = derived(Kind.LIST, *operands)
    found.items = [item for value in operands for item in value.items][:MOST_ITEMS]
    found.objects = any(value.objects for value in operands)
    return found


def compare(state: State, node: ast.AST, operators: Sequence[ast.cmpop], operands: Sequence[Value]) -> Value:
    """Value of a comparison."""
    if all(isinstance(operator, ast.Is | ast.IsNot | ast.In | ast.NotIn) for operator in operators):
        return _identity(operators, operands)
    images = [value for value in operands if value.kind in (Kind.PIXELS, Kind.IMAGE)]
    equal = all(isinstance(operator, ast.Eq | ast.NotEq) for operator in operators)
    if equal and len(images) > 1 and not all(value.part for value in images):
        refs = state.operation(node, Category.DIFFERENCE, "array comparison", *operands)
        return derived(Kind.MASK, *operands, refs=refs)
    if any(value.kind in ARRAYS or value.kind is Kind.PIXEL for value in operands):
        refs = state.operation(node, Category.THRESHOLD, "comparison of pixels", *operands)
        kind = Kind.NUMBER if any(value.kind is Kind.PIXEL for value in operands) else Kind.MASK
        return derived(kind, *operands, refs=refs)
    if all(value.kind is Kind.NUMBER for value in operands):
        refs = state.operation(node, Category.ARITHMETIC, "comparison", *operands, weak=Weak.COMPARISON)
        found = derived(Kind.NUMBER, *operands, refs=refs)
        _fold(found, node, operators, operands)
        return found
    tables = (kind for kind in (Kind.FRAME, Kind.SERIES) if any(value.kind is kind for value in operands))
    return derived(next(tables, Kind.UNKNOWN), *operands, objects=any(value.objects for value in operands))


def _identity(operators: Sequence[ast.cmpop], operands: Sequence[Value]) -> Value:
    return derived(Kind.NUMBER, *operands, refs=all_refs(*operands))


def _fold(found: Value, node: ast.AST, operators: Sequence[ast.cmpop], operands: Sequence[Value]) -> None:
    """A comparison of two literals is certain."""
    if not isinstance(node, ast.Compare) or not isinstance(node.left, ast.Constant) or len(operands) != 2:
        return
    if isinstance(node.comparators[0], ast.Constant) and isinstance(operators[0], ast.Eq | ast.NotEq):
        same = operands[0].const == operands[1].const
        found.const = same is isinstance(operators[0], ast.Eq)


def subscript(state: State, node: ast.Subscript, base: Value, index: Value) -> Value:
    """Value of an index or a slice."""
    chosen = all_refs(index).as_test(False)
    if base.kind in _SQUARE:
        return _of_array(state, node, base, index).under(chosen)
    if base.kind is Kind.ACCESS:
        refs = state.operation(node, Category.STATISTICS, "pixel access", base, index, weak=Weak.READING)
        return derived(Kind.PIXEL, base, refs=refs)
    if base.kind is Kind.AXES:
        return axes_at(base, _place(index))
    if base.kind in (Kind.LIST, Kind.DICT) or base.fields:
        return _of_container(node, base, index).under(chosen)
    if base.kind in (Kind.PROFILE, Kind.COORDINATES):
        if isinstance(node.slice, ast.Slice) or index.kind in ARRAYS:
            return derived(base.kind, base, targets=(base,)).under(chosen)
        kind = Kind.PIXEL if base.kind is Kind.PROFILE and base.part else Kind.NUMBER
        return derived(kind, base).under(chosen)
    if base.kind is Kind.SHAPES:
        whole = isinstance(node.slice, ast.Slice | ast.Tuple) or index.kind in ARRAYS
        return derived(Kind.SHAPES if whole else Kind.SHAPE, base).under(chosen)
    if base.kind is Kind.FRAME:
        return base.under(chosen)
    if base.path in _GRIDS:
        return derived(Kind.SERIES, base, series=True)
    if base.kind is Kind.SERIES:
        part = derived(Kind.SERIES, base, targets=(base,))
        part.kind = Kind.NUMBER if index.kind is Kind.NUMBER else Kind.SERIES
        part.series, part.objects = base.series, base.objects and part.kind is Kind.SERIES
        return part.under(chosen)
    kinds = (Kind.STRING, Kind.PIXEL, Kind.NUMBER, Kind.SHAPE)
    found = derived(base.kind if base.kind in kinds else Kind.UNKNOWN, base, targets=(base,))
    if base.kind is Kind.SHAPE:
        found.kind = Kind.NUMBER
    return found.under(chosen)


def _place(index: Value) -> object:
    """Constant index or indices; None where one is not known."""
    places = tuple(item.const if item.is_const else None for item in index.items)
    if places:
        return None if None in places else places
    return index.const if index.is_const else None


def _of_container(node: ast.Subscript, base: Value, index: Value) -> Value:
    if index.is_const and isinstance(index.const, str | int | float | bool):
        if index.const in base.fields:
            return base.fields[index.const].under(base.refs)
        place = index.const if base.kind is Kind.LIST and base.exact else None
        if isinstance(place, int) and -len(base.items) <= place < len(base.items):
            return base.items[place].under(base.refs)
    if isinstance(node.slice, ast.Slice):
        found = derived(base.kind, refs=base.refs)
        found.items, found.objects, found.series = base.items, base.objects, base.series
        return found
    return element(base) if base.items or not base.fields else joined(base.fields.values()).under(base.refs)


def _of_array(state: State, node: ast.Subscript, base: Value, index: Value) -> Value:
    """Slice of rows and columns, one pixel, a channel, or what a mask leaves."""
    if index.kind in ARRAYS or any(item.kind in ARRAYS for item in index.items):
        return derived(Kind.PROFILE, base, index, targets=(base,))
    if index.kind is Kind.SHAPE or (_is_slice(index) and not isinstance(node.slice, ast.Slice)):
        refs = state.operation(node, Category.CROP, "slice", base, index)
        return derived(base.kind, base, index, refs=refs, part=base.part, targets=(base,))
    # Each slice works on what the one before it gives: `a[10:90, ::-1]` is a crop, then a flip.
    axes = _axes(node.slice)
    found = derived(base.kind, base, part=base.part, targets=(base,))
    for category, call in _slices(axes):
        found.refs = state.operation(node, category, call, found, index)
    numbers = sum(_is_number(axis) for axis in axes[:2])
    if numbers:
        weak = Weak.READING if base.kind is Kind.PIXELS else Weak.PLAIN
        category = Category.STATISTICS
        found.refs = state.operation(node, category, "pixel", found, index, weak=weak)
        found.kind = Kind.PIXEL if numbers == 2 else Kind.PROFILE
    elif base.kind is Kind.PIXELS and len(axes) > 2 and _is_number(axes[2]):
        found.refs = state.operation(node, Category.COLOUR, "channel", found, weak=Weak.PIXELS)
        found.part = True
    return found


def _is_slice(value: Value) -> bool:
    slices = [item for item in value.items if item.path == "builtins.slice()"]
    return value.path == "builtins.slice()" or bool(value.items and len(slices) == len(value.items))


def _axes(node: ast.expr) -> list[ast.expr | None]:
    """Index by axis: rows, columns, channels; None for a whole axis."""
    parts: list[ast.expr] = list(node.elts) if isinstance(node, ast.Tuple) else [node]
    axes: list[ast.expr | None] = []
    for part in parts:
        if isinstance(part, ast.Constant) and part.value is None:
            continue
        if isinstance(part, ast.Constant) and part.value is ...:
            # an ellipsis stands for rows and columns where a channel follows
            axes += [None, None] if len(parts) > 1 else [None]
        else:
            axes.append(part)
    return axes


def _is_number(axis: ast.expr | None) -> bool:
    return axis is not None and not isinstance(axis, ast.Slice | ast.List)


def _slices(axes: Sequence[ast.expr | None]) -> list[tuple[Category, str]]:
    """Operations that slices of rows and columns are."""
    found: dict[Category, str] = {}
    for axis in axes[:2]:
        if not isinstance(axis, ast.Slice):
            continue
        if axis.lower is not None or axis.upper is not None:
            found[Category.CROP] = "slice"
        step = axis.step
        if isinstance(step, ast.UnaryOp) and isinstance(step.op, ast.USub):
            found[Category.ROTATE] = "slice backwards"
        elif step is not None and not (isinstance(step, ast.Constant) and step.value == 1):
            found[Category.RESIZE] = "slice with steps"
    return list(found.items())


def assign(state: State, node: ast.Subscript, base: Value, index: Value, value: Value) -> None:
    """Assignment to an element, a slice or a mask."""
    whole_rows = isinstance(node.slice, ast.Tuple) and any(isinstance(part, ast.Slice) for part in node.slice.elts)
    # an array of numbers becomes a picture when a region of it is filled, not when one element is set
    drawn = whole_rows or value.kind is Kind.PIXELS or index.kind in ARRAYS
    canvas = base.kind is Kind.SERIES and drawn
    if base.kind in (Kind.PIXELS, Kind.MASK, Kind.ACCESS) or canvas:
        pastes = value.kind in (Kind.PIXELS, Kind.IMAGE, Kind.PROFILE) and not value.part
        category = Category.GRID if pastes else Category.DRAW
        refs = state.operation(node, category, "assignment to pixels", base, index, value)
        if canvas:
            base.kind = Kind.PIXELS
        state.change(base, refs, image=from_image(value))
        return
    if base.kind is Kind.SERIES and value.kind in _HELD:
        # an array of objects holds what a list does
        base.kind = Kind.LIST
    if base.kind in (Kind.LIST, Kind.DICT):
        store(state, base, index, value)
        return
    state.taint(base, value)
    base.refs = base.refs.union(all_refs(index).as_test(False))
