"""Evaluation of expressions to abstract values."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from codedance_verl.operations import calls, pixels
from codedance_verl.operations.attributes import attribute, library_name
from codedance_verl.operations.catalogue import Category, Kind
from codedance_verl.operations.containers import store
from codedance_verl.operations.state import State
from codedance_verl.operations.values import (
    NO_REFS,
    Refs,
    Value,
    all_refs,
    axes_at,
    constant,
    derived,
    element,
    joined,
    listed,
)

MOST_UNROLLED = 16
"""Longest container whose elements a loop takes one by one; of longer ones it takes any."""

_LONGEST_TEXT = 10_000


def evaluate(state: State, node: ast.expr) -> Value:
    """Value of an expression. Raises TooLarge."""
    state.step()
    with state.deeper():
        return _HANDLERS.get(type(node), _unknown)(state, node)


def _unknown(state: State, node: ast.AST) -> Value:
    """Anything that derives from all of its parts."""
    parts = [evaluate(state, child) for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr)]
    return derived(Kind.UNKNOWN, *parts)


def _constant(state: State, node: ast.Constant) -> Value:
    return constant(node.value)


def _name(state: State, node: ast.Name) -> Value:
    found = state.find(node.id)
    return found if found is not None else Value(path=library_name(state, node.id))


def _attribute(state: State, node: ast.Attribute) -> Value:
    owner = evaluate(state, node.value)
    found = attribute(owner, node.attr)
    if owner.kind in (Kind.PIXELS, Kind.MASK) and node.attr == "T":
        found.refs = state.operation(node, Category.ROTATE, "numpy.ndarray.T", owner)
    if found.decorated == "property":
        return calls.call(state, node, found, [], {})
    return found


def _call(state: State, node: ast.Call) -> Value:
    function = evaluate(state, node.func)
    args: list[Value] = []
    for argument in node.args:
        if isinstance(argument, ast.Starred):
            container = evaluate(state, argument.value)
            args += container.items if container.exact else [element(container)]
        else:
            args.append(evaluate(state, argument))
    named: dict[str, Value] = {}
    for keyword in node.keywords:
        value = evaluate(state, keyword.value)
        if keyword.arg is not None:
            named[keyword.arg] = value
        else:
            named.update((str(key), item) for key, item in value.fields.items())
    return calls.call(state, node, function, args, named)


def _bin_op(state: State, node: ast.BinOp) -> Value:
    left, right = evaluate(state, node.left), evaluate(state, node.right)
    text, other = left.text(), right.text()
    if text is not None and other is not None and isinstance(node.op, ast.Add):
        # `s = s + s` doubles with each pass of a loop
        return constant((text + other)[:_LONGEST_TEXT])
    return pixels.binary(state, node, node.op, left, right)


def _unary_op(state: State, node: ast.UnaryOp) -> Value:
    operand = evaluate(state, node.operand)
    if isinstance(node.op, ast.Not):
        found = derived(Kind.NUMBER, operand)
        if (known := truth(operand)) is not None:
            found.const = not known
        return found
    if isinstance(node.op, ast.USub) and operand.is_const and isinstance(operand.const, int | float):
        return constant(-operand.const)
    return derived(operand.kind, operand, part=operand.part)


def _bool_op(state: State, node: ast.BoolOp) -> Value:
    """The operands behind one that always decides are not reached."""
    found: list[Value] = []
    with state.decided_by():
        for operand in node.values:
            value = evaluate(state, operand)
            found.append(value)
            # Each operand is reached only if those before it decided so.
            if (known := truth(value)) is not None and known is isinstance(node.op, ast.Or):
                break
            state.tests[-1] = state.tests[-1].union(all_refs(value).as_test(not value.image))
    return joined(found).under(all_refs(*found))


def _compare(state: State, node: ast.Compare) -> Value:
    operands = [evaluate(state, operand) for operand in (node.left, *node.comparators)]
    return pixels.compare(state, node, node.ops, operands)


def _if_exp(state: State, node: ast.IfExp) -> Value:
    test = evaluate(state, node.test)
    known = truth(test)
    with state.decided_by(test):
        found = [
            evaluate(state, part) for part, when in ((node.body, True), (node.orelse, False)) if known in (None, when)
        ]
    return joined(found).under(all_refs(test).as_test(not test.image))


def truth(value: Value) -> bool | None:
    """Truth of a value where it is certain."""
    if value.is_const:
        return bool(value.const)
    return False if value.kind is Kind.LIST and value.exact and not value.items else None


def _sequence(state: State, node: ast.Tuple | ast.List | ast.Set) -> Value:
    items: list[Value] = []
    exact = True
    for item in node.elts:
        if isinstance(item, ast.Starred):
            container = evaluate(state, item.value)
            exact = exact and container.exact
            items += container.items or [element(container)]
        else:
            items.append(evaluate(state, item))
    return listed(items, exact)


def _dict(state: State, node: ast.Dict) -> Value:
    found = Value(Kind.DICT, exact=True)
    for key, item in zip(node.keys, node.values, strict=True):
        value = evaluate(state, item)
        if key is None:
            found.fields.update(value.fields)
            found.items += value.items
        else:
            store(state, found, evaluate(state, key), value)
    return found


def _joined_str(state: State, node: ast.JoinedStr) -> Value:
    parts = [evaluate(state, part) for part in node.values]
    texts = [part.text() for part in parts]
    if all(text is not None for text in texts):
        return constant("".join(text for text in texts if text is not None))
    return derived(Kind.STRING, *parts)


def _formatted(state: State, node: ast.FormattedValue) -> Value:
    value = evaluate(state, node.value)
    if node.format_spec is not None:
        evaluate(state, node.format_spec)
    return value


def _subscript(state: State, node: ast.Subscript) -> Value:
    base = evaluate(state, node.value)
    index = evaluate(state, node.slice)
    return pixels.subscript(state, node, base, index)


def _slice(state: State, node: ast.Slice) -> Value:
    bounds = [evaluate(state, bound) for bound in (node.lower, node.upper, node.step) if bound is not None]
    return derived(Kind.OBJECT, *bounds, path="builtins.slice()")


def _lambda(state: State, node: ast.Lambda) -> Value:
    return calls.function_value(state, node)


def _yield(state: State, node: ast.Yield) -> Value:
    value = evaluate(state, node.value) if node.value is not None else Value(const=None)
    state.frame.yielded.append(value.under(state.control()))
    return Value()


def _yield_from(state: State, node: ast.YieldFrom) -> Value:
    value = evaluate(state, node.value)
    state.frame.yielded.append(element(value).under(state.control()))
    return value


def _await(state: State, node: ast.Await) -> Value:
    return evaluate(state, node.value)


def _named(state: State, node: ast.NamedExpr) -> Value:
    value = evaluate(state, node.value)
    state.bind(node.target.id, value)
    return state.find(node.target.id) or value


def _comprehension(state: State, node: ast.ListComp | ast.SetComp | ast.GeneratorExp) -> Value:
    taken: list[Value] = []
    flags = _each(state, node.generators, lambda: taken.append(evaluate(state, node.elt)))
    return _collected(state, node, flags, listed(taken, exact=flags.exact), taken)


def _dict_comprehension(state: State, node: ast.DictComp) -> Value:
    found = Value(Kind.DICT)
    taken: list[Value] = []

    def take() -> None:
        value = evaluate(state, node.value)
        taken.append(value)
        store(state, found, evaluate(state, node.key), value)

    return _collected(state, node, _each(state, node.generators, take), found, taken)


@dataclass
class _Flags:
    """Containers that the generators of a comprehension go over, with the fields of `Value`.

    Attributes:
        exact: each element is taken once, in order.
        pixels: elements are pixels of a given image.
        tested: a condition leaves elements out.
        refs: of the conditions.
    """

    exact: bool = True
    objects: bool = False
    series: bool = False
    pixels: bool = False
    tested: bool = False
    refs: Refs = NO_REFS


def _collected(state: State, node: ast.expr, flags: _Flags, found: Value, taken: Sequence[Value]) -> Value:
    found.objects, found.series = flags.objects, flags.series
    found.refs, found.image = flags.refs, flags.pixels
    # Pixels chosen from pixels are pixels: their sum is a statistic, not one of numbers that were typed in.
    if flags.pixels and all(value.kind in (Kind.PIXEL, Kind.NUMBER) for value in taken):
        found.kind, found.items = Kind.PROFILE, []
        found.refs = found.refs.union(all_refs(*taken))
    if flags.series and flags.tested and not any(value.image for value in taken):
        found.refs = state.operation(node, Category.SEARCH, "comprehension", found, *taken)
    return found


def _each(state: State, generators: Sequence[ast.comprehension], take: Callable[[], object]) -> _Flags:
    """Calls `take` for the elements of nested generators, in a scope of their own."""
    flags = _Flags()
    frame = state.frame
    outer = frame.scopes
    frame.scopes = (*outer, {})
    try:
        _nest(state, list(generators), take, flags)
    finally:
        frame.scopes = outer
    return flags


def _nest(state: State, generators: list[ast.comprehension], take: Callable[[], object], flags: _Flags) -> None:
    if not generators:
        take()
        return
    first, rest = generators[0], generators[1:]
    container = evaluate(state, first.iter)
    flags.objects = flags.objects or container.objects or container.kind is Kind.SHAPES
    flags.series = flags.series or container.series
    flags.pixels = flags.pixels or (container.kind is Kind.PROFILE and container.image)
    # a condition may leave out any of them
    one_by_one = container.exact and len(container.items) <= MOST_UNROLLED and not first.ifs
    flags.exact = flags.exact and one_by_one and not rest
    for item in container.items if container.exact and len(container.items) <= MOST_UNROLLED else [element(container)]:
        bind_target(state, first.target, item)
        tests = [evaluate(state, test) for test in first.ifs]
        flags.tested = flags.tested or bool(tests)
        flags.refs = flags.refs.union(all_refs(*tests).as_test(not any(test.image for test in tests)))
        if any(truth(test) is False for test in tests):
            continue
        with state.decided_by(*tests):
            _nest(state, rest, take, flags)


def bind_target(state: State, target: ast.expr, value: Value) -> None:
    """Assigns a value to a name, an attribute, an element, or to several targets its elements."""
    state.step()
    if isinstance(target, ast.Name):
        state.bind(target.id, value)
    elif isinstance(target, ast.Starred):
        bind_target(state, target.value, listed([element(value)], exact=False))
    elif isinstance(target, ast.Tuple | ast.List):
        for position, part in enumerate(target.elts):
            bind_target(state, part, unpacked(value, position, len(target.elts)))
    elif isinstance(target, ast.Attribute):
        owner = evaluate(state, target.value)
        owner.fields[target.attr] = value.under(state.control())
        if owner.kind is not Kind.UNKNOWN:
            state.taint(owner, value)
    elif isinstance(target, ast.Subscript):
        base, index = evaluate(state, target.value), evaluate(state, target.slice)
        pixels.assign(state, target, base, index, value)


def unpacked(value: Value, position: int, of: int) -> Value:
    """Element of a value that is assigned to `of` targets."""
    if value.kind is Kind.AXES:
        return axes_at(value, position)
    if value.exact and len(value.items) == of:
        return value.items[position].under(value.refs)
    if value.exact and value.items:
        return joined(value.items).under(value.refs)
    return element(value)


_HANDLERS: Mapping[type[ast.AST], Callable[[State, Any], Value]] = {
    ast.Constant: _constant,
    ast.Name: _name,
    ast.Attribute: _attribute,
    ast.Call: _call,
    ast.BinOp: _bin_op,
    ast.UnaryOp: _unary_op,
    ast.BoolOp: _bool_op,
    ast.Compare: _compare,
    ast.IfExp: _if_exp,
    ast.Tuple: _sequence,
    ast.List: _sequence,
    ast.Set: _sequence,
    ast.Dict: _dict,
    ast.JoinedStr: _joined_str,
    ast.FormattedValue: _formatted,
    ast.Subscript: _subscript,
    ast.Slice: _slice,
    ast.Lambda: _lambda,
    ast.NamedExpr: _named,
    ast.Yield: _yield,
    ast.YieldFrom: _yield_from,
    ast.Await: _await,
    ast.ListComp: _comprehension,
    ast.SetComp: _comprehension,
    ast.GeneratorExp: _comprehension,
    ast.DictComp: _dict_comprehension,
}
