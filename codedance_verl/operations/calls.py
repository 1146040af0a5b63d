"""Calls of functions and classes of the code, and of what a library has."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import replace

from codedance_verl.operations import library
from codedance_verl.operations.attributes import attribute
from codedance_verl.operations.catalogue import Category, Kind
from codedance_verl.operations.state import Frame, State
from codedance_verl.operations.values import (
    Function,
    Value,
    derived,
    joined,
    listed,
)

MOST_FRAMES = 12
"""Calls within one another that are followed."""


def call(state: State, node: ast.AST, function: Value, args: Sequence[Value], named: Mapping[str, Value]) -> Value:
    """Value of a call, by what is called. Raises TooLarge."""
    state.step()
    if function.options:
        return joined(call(state, node, option, args, named) for option in function.options)
    if function.function is not None:
        bound = [function.receiver, *args] if function.receiver is not None else args
        return _call_function(state, node, function.function, bound, named).under(function.refs)
    if function.is_class:
        return _instance(state, node, function, args, named)
    if (method := function.fields.get("__call__")) is not None:
        return call(state, node, method, args, named)
    if function.path == "functools.partial()" and function.receiver is not None:
        return call(state, node, function.receiver, [*function.items, *args], {**function.fields, **named})
    if function.path == "operator.methodcaller()" and function.items and args:
        method = attribute(args[0], function.items[0].text() or "")
        return call(state, node, method, function.items[1:], function.fields)
    if function.path:
        return library.call(state, node, function, args, named)
    return derived(Kind.UNKNOWN, function, *args, *named.values())


def function_value(state: State, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> Value:
    """Function that is defined here."""
    defaults = tuple(state.evaluate(state, default) for default in node.args.defaults)
    keyword_defaults = tuple(
        None if default is None else state.evaluate(state, default) for default in node.args.kw_defaults
    )
    return Value(function=Function(node, state.frame.scopes, defaults, keyword_defaults))


def _call_function(
    state: State, node: ast.AST, function: Function, args: Sequence[Value], named: Mapping[str, Value]
) -> Value:
    if any(frame.function is not None and frame.function.node is function.node for frame in state.frames):
        # What it gives is not known here; that it searches, or repeats something, is.
        refs = state.operation(node, Category.SEARCH, "recursion", *args, *named.values())
        return derived(Kind.NUMBER, *args, refs=refs)
    if len(state.frames) > MOST_FRAMES:
        return derived(Kind.UNKNOWN, *args, *named.values())
    frame = Frame((*function.scopes, _bound(function, args, named)), function)
    state.frames.append(frame)
    try:
        with state.deeper():
            if isinstance(function.node, ast.Lambda):
                return state.evaluate(state, function.node.body)
            state.run(state, function.node.body)
    finally:
        state.frames.pop()
    if frame.yielded:
        return listed(frame.yielded, exact=False)
    return joined(frame.returned) if frame.returned else Value(const=None)


def _bound(function: Function, args: Sequence[Value], named: Mapping[str, Value]) -> dict[str, Value]:
    """Values of the parameters."""
    parameters = function.node.args
    names = [parameter.arg for parameter in (*parameters.posonlyargs, *parameters.args)]
    # from the end: defaults belong to the last parameters
    found: dict[str, Value] = dict(zip(reversed(names), reversed(function.defaults), strict=False))
    for parameter, default in zip(parameters.kwonlyargs, function.keyword_defaults, strict=True):
        found[parameter.arg] = default or Value()
    found.update(zip(names, args, strict=False))
    known = {*names, *(parameter.arg for parameter in parameters.kwonlyargs)}
    found.update((name, value) for name, value in named.items() if name in known)
    if parameters.vararg is not None:
        found[parameters.vararg.arg] = listed(args[len(names) :])
    if parameters.kwarg is not None:
        others = {name: value for name, value in named.items() if name not in known}
        found[parameters.kwarg.arg] = Value(Kind.DICT, fields=dict(others), exact=True)
    return {name: found.get(name, Value()) for name in (*names, *found)}


def _instance(state: State, node: ast.AST, cls: Value, args: Sequence[Value], named: Mapping[str, Value]) -> Value:
    """Object of a class of the code; its methods are bound to it."""
    made = Value(path=cls.path)
    # Each object has methods of its own, so that an attribute finds the object that it belongs to.
    for name, member in cls.fields.items():
        is_method = member.function is not None and member.decorated != "staticmethod"
        made.fields[name] = replace(member, receiver=made) if is_method else member
    start = made.fields.get("__init__")
    if start is not None:
        call(state, node, start, args, named)
    else:
        made.fields.update(named)
        if args:
            state.taint(made, *args)
    return made
