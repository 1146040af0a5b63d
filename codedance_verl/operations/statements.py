"""Execution of statements on abstract values; what is not reached is left out."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from codedance_verl.operations import branches, calls, loop_shapes, loops, pixels
from codedance_verl.operations.attributes import canonical
from codedance_verl.operations.catalogue import Category, Kind
from codedance_verl.operations.expressions import bind_target, evaluate, truth
from codedance_verl.operations.state import End, Scope, State
from codedance_verl.operations.values import (
    Value,
    derived,
    element,
    listed,
)

_EXITS = frozenset(("builtins.exit", "builtins.quit", "sys.exit", "os._exit", "os.abort"))


def run(state: State, body: Sequence[ast.stmt]) -> End:
    """Runs statements up to one that ends the block. Raises TooLarge."""
    for statement in body:
        state.step()
        with state.deeper():
            end = _HANDLERS.get(type(statement), _other)(state, statement)
        if end is not End.PLAIN:
            return end
    return End.PLAIN


def _other(state: State, node: ast.stmt) -> End:
    return End.PLAIN


def _expression(state: State, node: ast.Expr) -> End:
    evaluate(state, node.value)
    if isinstance(node.value, ast.Call) and _called(state, node.value.func) in _EXITS:
        return End.CALL
    return End.PLAIN


def _called(state: State, node: ast.expr) -> str:
    """Dotted name of what is called, for names and attributes of names alone."""
    plain = node
    while isinstance(plain, ast.Attribute):
        plain = plain.value
    # Anything else was evaluated already, and would have its effects twice.
    return evaluate(state, node).path if isinstance(plain, ast.Name) else ""


def _assign(state: State, node: ast.Assign) -> End:
    value = evaluate(state, node.value)
    for target in node.targets:
        bind_target(state, target, value)
    return End.PLAIN


def _annotated(state: State, node: ast.AnnAssign) -> End:
    if node.value is not None:
        bind_target(state, node.target, evaluate(state, node.value))
    return End.PLAIN


def _augmented(state: State, node: ast.AugAssign) -> End:
    old = evaluate(state, node.target)
    value = evaluate(state, node.value)
    if state.loops and loop_shapes.counts_by(node):
        objects = over_objects(state)
        refs = old.refs
        if objects is not None:
            refs = state.operation(node, Category.COUNT, "counter over objects", objects, old)
        bind_target(state, node.target, derived(Kind.NUMBER, old, refs=refs))
        return End.PLAIN
    if old.kind in (Kind.LIST, Kind.DICT) and isinstance(node.op, ast.Add | ast.BitOr):
        # `+=` changes a list in place: all names that are bound to it see that
        old.exact = False
        old.items += value.items or [element(value)]
        state.taint(old, value)
        return End.PLAIN
    bind_target(state, node.target, pixels.binary(state, node, node.op, old, value))
    return End.PLAIN


def over_objects(state: State) -> Value | None:
    """Objects found in an image that the innermost such loop goes over."""
    return next((value for value in reversed(state.loops) if value.objects or value.kind is Kind.SHAPES), None)


def _delete(state: State, node: ast.Delete) -> End:
    for target in node.targets:
        if isinstance(target, ast.Name):
            state.unbind(target.id)
    return End.PLAIN


def _import(state: State, node: ast.Import) -> End:
    for alias in node.names:
        name = canonical(alias.name)
        # `import a.b` binds `a`
        first = alias.name.partition(".")[0]
        state.bind(alias.asname or first, Value(path=name if alias.asname else first))
    return End.PLAIN


def _import_from(state: State, node: ast.ImportFrom) -> End:
    for alias in node.names:
        if alias.name == "*":
            state.stars.append(node.module or "")
        else:
            state.bind(alias.asname or alias.name, Value(path=canonical(f"{node.module}.{alias.name}")))
    return End.PLAIN


def _function(state: State, node: ast.FunctionDef | ast.AsyncFunctionDef) -> End:
    value = calls.function_value(state, node)
    # the innermost is applied first
    for decorator in reversed(node.decorator_list):
        wrapper = evaluate(state, decorator)
        name = wrapper.path.rpartition(".")[2]
        if name in ("property", "cached_property", "staticmethod"):
            value.decorated = name.removeprefix("cached_")
        elif wrapper.function is not None or wrapper.is_class:
            value = calls.call(state, decorator, wrapper, [value], {})
    state.bind(node.name, value)
    return End.PLAIN


def _class(state: State, node: ast.ClassDef) -> End:
    made = Value(is_class=True)
    for base in node.bases:
        parent = evaluate(state, base)
        made.fields.update(parent.fields)
        made.path = made.path or parent.path
    # Methods see the names around the class, not those in it.
    frame = state.frame
    outer, members = frame.scopes, dict[str, Value]()
    frame.scopes = (*outer, members)
    try:
        run(state, node.body)
    finally:
        frame.scopes = outer
    made.fields.update(members)
    for decorator in node.decorator_list:
        evaluate(state, decorator)
    state.bind(node.name, made)
    return End.PLAIN


def _return(state: State, node: ast.Return) -> End:
    if node.value is not None:
        state.frame.returned.append(evaluate(state, node.value).under(state.control()))
    return End.CALL


def _raise(state: State, node: ast.Raise) -> End:
    if node.exc is not None:
        # The message is part of what the cell shows, unless it is caught.
        state.show(evaluate(state, node.exc))
    return End.CALL


def _leave_loop(state: State, node: ast.stmt) -> End:
    return End.LOOP


def _global(state: State, node: ast.Global) -> End:
    state.frame.elsewhere.update(dict.fromkeys(node.names, state.names))
    return End.PLAIN


def _nonlocal(state: State, node: ast.Nonlocal) -> End:
    for name in node.names:
        outer = next((scope for scope in reversed(state.frame.scopes[:-1]) if name in scope), state.names)
        state.frame.elsewhere[name] = outer
    return End.PLAIN


def _if(state: State, node: ast.If) -> End:
    test = evaluate(state, node.test)
    known = truth(test)
    if known is not None:
        with state.decided_by(test):
            return run(state, node.body if known else node.orelse)
    with state.decided_by(test):
        return branches.branch(state, [lambda: run(state, node.body), lambda: run(state, node.orelse)])


def _try(state: State, node: ast.Try) -> End:
    def body() -> End:
        end = run(state, node.body)
        return run(state, node.orelse) if end is End.PLAIN else end

    ways = [body]
    for handler in node.handlers:

        def handled(handler: ast.ExceptHandler = handler) -> End:
            # The body may have failed anywhere: what it has bound may be there.
            scope = state.frame.scopes[-1]
            scope.update({name: value for name, value in tried.items() if name not in scope})
            if handler.name:
                state.bind(handler.name, Value())
            return run(state, handler.body)

        ways.append(handled)
    tried: Scope = {}
    first = ways[0]

    def remembered() -> End:
        end = first()
        tried.update(state.frame.scopes[-1])
        return end

    end = branches.branch(state, [remembered, *ways[1:]])
    last = run(state, node.finalbody)
    return last if last is not End.PLAIN else end


def _with(state: State, node: ast.With | ast.AsyncWith) -> End:
    for item in node.items:
        value = evaluate(state, item.context_expr)
        if item.optional_vars is not None:
            bind_target(state, item.optional_vars, value)
    return run(state, node.body)


def _match(state: State, node: ast.Match) -> End:
    subject = evaluate(state, node.subject)

    def case(found: ast.match_case) -> End:
        for part in ast.walk(found.pattern):
            if isinstance(part, ast.MatchAs | ast.MatchStar) and part.name:
                state.bind(part.name, subject if isinstance(part, ast.MatchAs) else listed([element(subject)]))
        return run(state, found.body)

    with state.decided_by(subject):
        return branches.branch(state, [lambda found=found: case(found) for found in node.cases])  # type: ignore[misc]


def _assert(state: State, node: ast.Assert) -> End:
    evaluate(state, node.test)
    return End.PLAIN


_HANDLERS: Mapping[type[ast.stmt], Callable[[State, Any], End]] = {
    ast.Expr: _expression,
    ast.Assign: _assign,
    ast.AnnAssign: _annotated,
    ast.AugAssign: _augmented,
    ast.Delete: _delete,
    ast.Import: _import,
    ast.ImportFrom: _import_from,
    ast.FunctionDef: _function,
    ast.AsyncFunctionDef: _function,
    ast.ClassDef: _class,
    ast.Return: _return,
    ast.Raise: _raise,
    ast.Break: _leave_loop,
    ast.Continue: _leave_loop,
    ast.Global: _global,
    ast.Nonlocal: _nonlocal,
    ast.If: _if,
    ast.For: loops.run_for,
    ast.AsyncFor: loops.run_for,
    ast.While: loops.run_while,
    ast.Try: _try,
    ast.TryStar: _try,
    ast.With: _with,
    ast.AsyncWith: _with,
    ast.Match: _match,
    ast.Assert: _assert,
}
