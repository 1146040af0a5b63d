"""Calls of numpy, as functions and as methods of arrays: the category follows from what the array holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from codedance_verl.operations import pixels
from codedance_verl.operations.catalogue import ARRAYS, Category, Kind, words
from codedance_verl.operations.graph import Weak
from codedance_verl.operations.invocation import Invocation
from codedance_verl.operations.state import State
from codedance_verl.operations.values import Value, all_refs, derived, element, listed

_ORDER = words("sort argsort lexsort partition argpartition searchsorted unique")
_AGGREGATES = words(
    "sum mean median std var max min amax amin percentile quantile average ptp prod cumsum cumprod argmax "
    "argmin count_nonzero any all nansum nanmean nanmax nanmin nanstd nanmedian corrcoef cov bincount "
    "histogram digitize histogram2d"
)
_ELEMENTWISE = words(
    "abs absolute fabs sqrt square power exp log log2 log10 clip minimum maximum add subtract multiply "
    "divide true_divide floor_divide mod remainder round rint floor ceil negative hypot cbrt sign dot "
    "matmul sin cos tan arctan arctan2 arcsin arccos deg2rad rad2deg degrees radians cross inner outer "
    "trapz interp tensordot einsum norm det inv"
)
_UNSEEN = words("abs absolute fabs clip round rint hypot nan_to_num")
"""Functions that change no colour by themselves: they bring numbers into the range of pixels."""

_COMPARISONS = words(
    "greater greater_equal less less_equal equal not_equal isin in1d isclose __gt__ __ge__ __lt__ __le__ __eq__ __ne__"
)
_EQUALITIES = words("equal not_equal __eq__ __ne__ isclose")
_LOGIC = words("logical_and logical_or logical_not logical_xor bitwise_and bitwise_or bitwise_xor invert")
_TURNS = words("flip fliplr flipud rot90 transpose swapaxes roll")
_VIEWS = words(
    "reshape squeeze expand_dims atleast_2d atleast_3d view ascontiguousarray asarray asanyarray swapaxes moveaxis"
)
_COPIES = words(
    "array copy astype uint8 uint16 int8 int16 int32 int64 int_ float16 float32 float64 float_ bool_ "
    "nan_to_num tolist item asfarray stack dstack tobytes float int frombuffer"
)
_FLAT = words("ravel flatten")
_MADE = words("zeros ones full empty zeros_like ones_like full_like empty_like eye identity")
_SERIES = words("arange linspace logspace indices meshgrid mgrid ogrid ndindex")
_JOINS = words("hstack vstack concatenate column_stack row_stack block tile append pad insert")
_SAME = words("array_equal allclose array_equiv")


def handle(state: State, done: Invocation) -> Value | None:
    """Value of a call of numpy; None for any other."""
    path = done.path
    if path.startswith("shape."):
        return derived(Kind.SHAPE, *done.operands)
    if not path.startswith("numpy.") or path.startswith(("numpy.random.", "numpy.fft.", "numpy.polynomial.")):
        return None
    if path.endswith(".at") or path.startswith("numpy.testing."):
        return None
    rule = next((rule for names, rule in _RULES.items() if done.name in names), None)
    if rule is None:
        return _other(state, done)
    # a method has the name of the function that does the same
    return rule(state, replace(done, path=path.replace("numpy.ndarray.", "numpy.")))


def _first(done: Invocation) -> Value:
    """First operand that is pixel data, else the subject; of a list its elements."""
    for value in done.operands:
        if value.pixels:
            return value
    subject = done.subject
    if subject.kind is Kind.LIST and subject.items and all(item.pixels for item in subject.items):
        return element(subject)
    return subject


def _aggregate(state: State, done: Invocation) -> Value:
    subject = _first(done)
    if done.name == "corrcoef" and sum(value.pixels for value in done.operands) > 1:
        return _compare_two(state, done)
    axis = done.argument(0, "axis")
    return aggregate(state, done, subject, axis)


def aggregate(state: State, done: Invocation, subject: Value, axis: Value | None = None) -> Value:
    """Value of a sum, an extreme or the like."""
    # axis 2 of rows, columns and channels: what is left is a grey image, no statistic
    over_channels = axis is not None and axis.is_const and axis.const in (-1, 2) and subject.kind is Kind.PIXELS
    if over_channels and not subject.part:
        if done.name in ("any", "all"):
            return derived(Kind.MASK, *done.operands)
        refs = state.operation(done.node, Category.COLOUR, done.path, *done.operands, weak=Weak.PIXELS)
        return derived(Kind.PIXELS, *done.operands, refs=refs, part=True)
    if axis is not None and axis.is_const and axis.const in (-1, 2) and subject.kind is Kind.MASK:
        return derived(Kind.MASK, *done.operands)
    if subject.kind is Kind.SCORES:
        return derived(Kind.NUMBER, *done.operands)
    if subject.kind is Kind.LABELS and done.name in ("max", "amax"):
        return _plain(state, done, Category.COUNT, Weak.NO)
    if done.name == "count_nonzero" and subject.objects:
        return _plain(state, done, Category.COUNT, Weak.NO)
    if subject.pixels:
        one_axis = axis is not None and axis.kind is Kind.NUMBER and not isinstance(axis.const, bool)
        found = _plain(state, done, Category.STATISTICS, Weak.NO)
        found.kind = Kind.PROFILE if one_axis or done.name in ("cumsum", "bincount") else Kind.NUMBER
        return listed([found, found]) if done.name == "histogram" else found
    if subject.kind in (Kind.SHAPE, Kind.SHAPES):
        return derived(Kind.NUMBER, *done.operands)
    if subject.series or (subject.kind is Kind.NUMBER and not subject.items):
        return _plain(state, done, Category.ARITHMETIC, Weak.PLAIN)
    if subject.kind in (Kind.LIST, Kind.DICT, Kind.SERIES, Kind.FRAME):
        return _plain(state, done, Category.TABLES, Weak.NO)
    return derived(Kind.UNKNOWN, *done.operands)


def _plain(state: State, done: Invocation, category: Category, weak: Weak) -> Value:
    refs = state.operation(done.node, category, done.path, *done.operands, weak=weak)
    kind = Kind.SERIES if done.name in ("cumsum", "cumprod") else Kind.NUMBER
    return derived(kind, *done.operands, refs=refs)


def _order(state: State, done: Invocation) -> Value:
    subject = _first(done)
    if done.name == "unique" and subject.pixels:
        counts = "return_counts" in done.named or subject.kind is Kind.LABELS
        category = Category.COUNT if counts else Category.STATISTICS
        refs = state.operation(done.node, category, done.path, *done.operands)
        found = derived(Kind.PROFILE, *done.operands, refs=refs, objects=subject.kind is Kind.LABELS)
        return listed([found, found]) if "return_counts" in done.named else found
    if subject.pixels:
        refs = state.operation(done.node, Category.STATISTICS, done.path, *done.operands)
        return derived(subject.kind, *done.operands, refs=refs)
    if subject.kind in (Kind.SHAPE, Kind.SHAPES):
        return derived(subject.kind, *done.operands)
    if subject.kind in (Kind.LIST, Kind.DICT, Kind.SERIES, Kind.FRAME):
        refs = state.operation(done.node, Category.TABLES, done.path, *done.operands)
        found = derived(Kind.SERIES, *done.operands, refs=refs)
        if done.name == "sort" and done.receiver is not None:
            state.change(done.receiver, refs)
        return listed([found, found]) if "return_counts" in done.named else found
    return derived(subject.kind, *done.operands)


def _elementwise(state: State, done: Invocation) -> Value:
    subject = _first(done)
    if done.name in ("add", "subtract") and len(done.args) > 1:
        operator = pixels.ADD if done.name == "add" else pixels.SUBTRACT
        return pixels.binary(state, done.node, operator, done.args[0], done.args[1])
    if done.name in _UNSEEN and subject.kind in ARRAYS and subject.kind is not Kind.COORDINATES:
        return _of_subject(done, subject, subject.kind)
    if done.name == "norm" and subject.pixels:
        axis = done.argument(1, "axis")
        if axis is None:
            return aggregate(state, done, subject)
    return pixels.elementwise(state, done.node, done.path, done.operands)


def _comparison(state: State, done: Invocation) -> Value:
    if done.name in _EQUALITIES and sum(value.kind in (Kind.PIXELS, Kind.IMAGE) for value in done.operands) > 1:
        return _compare_two(state, done)
    if any(value.pixels for value in done.operands):
        refs = state.operation(done.node, Category.THRESHOLD, done.path, *done.operands)
        return derived(Kind.MASK, *done.operands, refs=refs)
    return derived(Kind.SERIES, *done.operands)


def _compare_two(state: State, done: Invocation) -> Value:
    refs = state.operation(done.node, Category.DIFFERENCE, done.path, *done.operands)
    return derived(Kind.NUMBER, *done.operands, refs=refs)


def _same(state: State, done: Invocation) -> Value:
    if sum(value.pixels for value in done.operands) > 1:
        return _compare_two(state, done)
    return derived(Kind.NUMBER, *done.operands)


def _logic(state: State, done: Invocation) -> Value:
    kind = Kind.MASK if any(value.pixels for value in done.operands) else Kind.SERIES
    return derived(kind, *done.operands)


def _where(state: State, done: Invocation) -> Value:
    if not any(value.pixels for value in done.operands):
        if done.name == "where" and len(done.args) == 3:
            return derived(Kind.SERIES, *done.operands)
        return listed([derived(Kind.SERIES, *done.operands)])
    refs = all_refs(*done.operands)
    if not any(value.kind is Kind.MASK for value in done.operands):
        # of a mask it only says where; what made the mask is the operation
        refs = state.operation(done.node, Category.THRESHOLD, done.path, *done.operands)
    if done.name == "where" and len(done.args) == 3:
        return derived(Kind.PIXELS, *done.operands, refs=refs)
    place = derived(Kind.COORDINATES, *done.operands, refs=refs)
    return place if done.name in ("argwhere", "flatnonzero", "findNonZero") else listed([place, place])


def _turn(state: State, done: Invocation) -> Value:
    subject = _first(done)
    if subject.kind not in (Kind.PIXELS, Kind.MASK, Kind.LABELS):
        return derived(subject.kind, *done.operands)
    refs = state.operation(done.node, Category.ROTATE, done.path, *done.operands)
    return derived(subject.kind, *done.operands, refs=refs, part=subject.part, targets=(subject,))


def _repeat(state: State, done: Invocation) -> Value:
    subject = _first(done)
    if subject.kind not in (Kind.PIXELS, Kind.MASK):
        return derived(subject.kind, *done.operands)
    refs = state.operation(done.node, Category.RESIZE, done.path, *done.operands)
    return derived(subject.kind, *done.operands, refs=refs, part=subject.part)


def _join(state: State, done: Invocation) -> Value:
    subject = _first(done)
    if subject.kind not in (Kind.PIXELS, Kind.IMAGE, Kind.MASK):
        return derived(subject.kind if subject.kind in ARRAYS else Kind.SERIES, *done.operands)
    refs = state.operation(done.node, Category.GRID, done.path, *done.operands)
    return derived(Kind.PIXELS, *done.operands, refs=refs)


def _gradient(state: State, done: Invocation) -> Value:
    subject = _first(done)
    if subject.kind not in (Kind.PIXELS, Kind.PROFILE, Kind.MASK):
        return pixels.elementwise(state, done.node, done.path, done.operands)
    refs = state.operation(done.node, Category.EDGES, done.path, *done.operands)
    found = derived(subject.kind, *done.operands, refs=refs, part=True)
    return listed([found, found]) if done.name == "gradient" and subject.kind is Kind.PIXELS else found


def _conversion(state: State, done: Invocation) -> Value:
    subject = _first(done)
    view = done.name in _VIEWS and subject.kind is not Kind.IMAGE
    targets = (subject,) if view else ()
    kind = subject.kind
    if kind is Kind.IMAGE:
        kind = Kind.PIXELS
    elif done.name in _FLAT and kind in (Kind.PIXELS, Kind.MASK):
        kind = Kind.PROFILE if kind is Kind.PIXELS else Kind.MASK
    elif kind in (Kind.LIST, Kind.UNKNOWN, Kind.NUMBER) and done.name in ("array", "asarray", "float32", "int32"):
        kind = Kind.SERIES if subject.image or kind is not Kind.UNKNOWN else Kind.UNKNOWN
    found = _of_subject(done, subject, kind)
    found.targets = targets
    found.objects, found.series = subject.objects, subject.series
    if subject.kind is Kind.LIST and done.name == "tolist":
        found.items = subject.items
    return found


def _of_subject(done: Invocation, subject: Value, kind: Kind) -> Value:
    """Value with the pixels or numbers of one operand; the other operands are parameters."""
    others = [value for value in done.operands if value is not subject and value.kind is Kind.NUMBER]
    sources = [value for value in done.operands if all(value is not other for other in others)]
    found = derived(kind, *sources, part=subject.part)
    found.refs = found.refs.union(all_refs(*others).as_test(False))
    return found


def _made(state: State, done: Invocation) -> Value:
    return derived(Kind.SERIES, *(value for value in done.operands if not value.pixels))


def _series(state: State, done: Invocation) -> Value:
    found = derived(Kind.SERIES, *done.operands)
    found.refs = found.refs.as_test(False)
    found.series = True
    return found


def _other(state: State, done: Invocation) -> Value | None:
    if done.path.startswith("numpy.linalg."):
        return None if not any(value.pixels for value in done.operands) else _elementwise(state, done)
    if done.path.startswith("numpy.ndarray."):
        return derived(Kind.UNKNOWN, *done.operands)
    return None


_RULES: Mapping[frozenset[str], Callable[[State, Invocation], Value]] = {
    _AGGREGATES: _aggregate,
    _ORDER: _order,
    _ELEMENTWISE: _elementwise,
    _COMPARISONS: _comparison,
    _LOGIC: _logic,
    frozenset(("where", "nonzero", "argwhere", "flatnonzero")): _where,
    _SAME: _same,
    _TURNS: _turn,
    frozenset(("repeat", "kron", "resize")): _repeat,
    _JOINS: _join,
    frozenset(("diff", "gradient")): _gradient,
    _VIEWS | _COPIES | _FLAT: _conversion,
    _MADE: _made,
    _SERIES: _series,
}
"""Rules by the names of functions."""
