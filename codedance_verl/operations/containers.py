"""Lists and dictionaries: what is put into them, and their methods."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from codedance_verl.operations.catalogue import Category, Kind
from codedance_verl.operations.invocation import Invocation
from codedance_verl.operations.state import State
from codedance_verl.operations.values import (
    MOST_ITEMS,
    Value,
    all_refs,
    constant,
    derived,
    element,
    joined,
    listed,
)

_KEYS = (str, int, float, bool)


def store(state: State, container: Value, key: Value, value: Value) -> None:
    """Puts a value into a container under a key, or at a place."""
    kept = value.under(state.control()) if state.tests else value
    # a key chooses the place; it does not flow into what is put there
    container.refs = container.refs.union(all_refs(key).as_test(False))
    known = key.is_const and isinstance(key.const, _KEYS)
    if container.kind is Kind.DICT and known:
        container.fields[key.const] = kept
    elif container.exact and container.kind is Kind.LIST and known and 0 <= key.const < len(container.items):
        container.items[key.const] = kept
    else:
        container.exact = False
        add(container, kept)


def add(container: Value, value: Value) -> None:
    """Puts a value at the end."""
    if len(container.items) < MOST_ITEMS:
        container.items.append(value)
    else:
        container.exact = False
        container.refs = container.refs.union(all_refs(value))


def contents(container: Value) -> list[Value]:
    """Values that are in a container."""
    return [*container.items, *(container.fields.values() if container.kind is Kind.DICT else ())]


def handle(state: State, done: Invocation) -> Value | None:
    """Value of a method of a list or a dictionary; None for any other."""
    if not done.path.startswith(("builtins.list.", "builtins.dict.")):
        return None
    rule = _METHODS.get(done.name)
    if rule is None:
        return None
    return rule(state, done)


def _append(state: State, done: Invocation) -> Value:
    container = done.subject
    if state.loops:
        container.exact = False
        over = state.loops[-1]
        container.objects = container.objects or over.objects or over.kind is Kind.SHAPES
    for value in done.rest:
        add(container, value.under(state.control()) if state.tests else value)
    return Value(const=None)


def _extend(state: State, done: Invocation) -> Value:
    container = done.subject
    for value in done.rest:
        container.exact = container.exact and value.exact and not state.loops
        container.objects = container.objects or value.objects or value.kind is Kind.SHAPES
        container.fields.update(value.fields)
        for item in value.items or [element(value)]:
            add(container, item.under(value.refs.union(state.control())))
    return Value(const=None)


def _get(state: State, done: Invocation) -> Value:
    container = done.subject
    key = done.argument(0, "key")
    default = done.argument(1, "default")
    if done.name == "setdefault" and key is not None:
        store(state, container, key, default or Value())
    known = key.const if key is not None and key.is_const and isinstance(key.const, _KEYS) else None
    if known is not None and known in container.fields:
        return container.fields[known].under(container.refs)
    if known in (-1, 0) and container.exact and container.items:
        return container.items[int(known)].under(container.refs)
    found = contents(container)
    chosen = all_refs(*done.rest[:1]).as_test(False)
    return joined([*found, *([default] if default is not None else [])]).under(container.refs.union(chosen))


def _pop(state: State, done: Invocation) -> Value:
    container = done.subject
    if done.name == "popitem":
        return listed([Value(), joined(contents(container)).under(container.refs)])
    found = _get(state, done) if done.rest else joined(contents(container)).under(container.refs)
    container.exact = False
    return found


def _items(state: State, done: Invocation) -> Value:
    container = done.subject
    match done.name:
        case "keys":
            found = listed([constant(key) for key in container.fields], exact=container.exact)
        case "values":
            found = listed(contents(container), exact=container.exact)
        case _:
            pairs = [listed([constant(key), value]) for key, value in container.fields.items()]
            pairs += [listed([Value(Kind.UNKNOWN, container.refs), value]) for value in container.items]
            found = listed(pairs, exact=container.exact)
    found.refs, found.objects, found.image = container.refs, container.objects, container.image
    return found


def _copy(state: State, done: Invocation) -> Value:
    container = done.subject
    return Value(
        container.kind,
        container.refs,
        image=container.image,
        objects=container.objects,
        series=container.series,
        items=list(container.items),
        exact=container.exact,
        fields=dict(container.fields),
    )


def _sort(state: State, done: Invocation) -> Value:
    container = done.subject
    if orders_numbers(container):
        refs = state.operation(done.node, Category.TABLES, done.path, container)
        state.change(container, refs)
    container.exact = False
    return Value(const=None)


def orders_numbers(container: Value) -> bool:
    """True where an order or an extreme of it is one of numbers or words: not of contours or images."""
    found = element(container)
    kinds = (Kind.SHAPE, Kind.SHAPES, Kind.IMAGE, Kind.PIXELS)
    return container.kind not in kinds and found.kind not in kinds


def _number(state: State, done: Invocation) -> Value:
    return derived(Kind.NUMBER, *done.operands)


def _nothing(state: State, done: Invocation) -> Value:
    done.subject.exact = False
    return Value(const=None)


_METHODS: Mapping[str, Callable[[State, Invocation], Value]] = {
    "append": _append,
    "add": _append,
    # the first argument is a place, no element
    "insert": lambda state, done: _append(state, Invocation(done.node, done.path, done.subject, done.rest[1:], {})),
    "extend": _extend,
    "update": _extend,
    "get": _get,
    "setdefault": _get,
    "pop": _pop,
    "popitem": _pop,
    "items": _items,
    "keys": _items,
    "values": _items,
    "copy": _copy,
    "sort": _sort,
    "index": _number,
    "count": _number,
    "remove": _nothing,
    "discard": _nothing,
    "reverse": _nothing,
    "clear": _nothing,
}
