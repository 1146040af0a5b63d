"""Loops: taken once for each known element, else twice; whether they search, simulate or sum up."""

from __future__ import annotations

import ast

from codedance_verl.operations import loop_shapes
from codedance_verl.operations.branches import branch
from codedance_verl.operations.catalogue import Category, Kind
from codedance_verl.operations.expressions import MOST_UNROLLED, bind_target, truth
from codedance_verl.operations.state import End, State
from codedance_verl.operations.values import NO_REFS, Refs, Value, all_refs, derived, element, from_image


def run_for(state: State, node: ast.For | ast.AsyncFor) -> End:
    container = state.evaluate(state, node.iter)
    if truth(container) is False and container.kind is Kind.LIST:
        return state.run(state, node.orelse)
    touched = state.graph.touched
    state.loops.append(container)
    try:
        end = _passes(state, node, container, touched)
    finally:
        state.loops.pop()
    return end if end is End.CALL else _after(state, node)


def _passes(state: State, node: ast.For | ast.AsyncFor, container: Value, touched: int) -> End:
    # How often a pass is made depends on the container; one whose elements are known runs for each.
    refs = all_refs(container).as_test(False)
    if container.exact and len(container.items) <= MOST_UNROLLED:
        end = End.PLAIN
        with state.decided_by(refs=refs):
            for item in container.items:
                bind_target(state, node.target, item.under(container.refs))
                end = state.run(state, node.body)
                if end is End.CALL:
                    return end
        _sum_up(state, node, container, touched)
        return end

    def once() -> End:
        bind_target(state, node.target, element(container))
        return state.run(state, node.body)

    # The second pass sees what the first one left, as all later passes do.
    with state.decided_by(refs=refs):
        first = branch(state, [once, lambda: End.PLAIN])
    # Only after a pass it is known whether the loop works on images; what it shows then derives from the search.
    searching = _searches(state, node, container, touched)
    with state.decided_by(refs=refs.union(searching)):
        branch(state, [once, lambda: End.PLAIN])
    if searching is NO_REFS:
        _sum_up(state, node, container, touched)
    return End.PLAIN if first is End.CALL else first


def _after(state: State, node: ast.For | ast.AsyncFor | ast.While) -> End:
    return state.run(state, node.orelse) if node.orelse else End.PLAIN


def _searches(state: State, node: ast.For | ast.AsyncFor, container: Value, touched: int) -> Refs:
    """Refs of a search or simulation, as a test of plain values, where a loop over a rule's numbers is one."""
    if not container.series or from_image(container) or state.graph.touched != touched:
        return NO_REFS
    names = loop_shapes.carried(node)
    if not names and not loop_shapes.is_guarded(node):
        return NO_REFS
    return _as_search(state, node, names, "for")


def _as_search(state: State, node: ast.stmt, names: frozenset[str], word: str) -> Refs:
    values = [value for name in sorted(names) if (value := state.find(name)) is not None]
    if any(from_image(value) for value in values):
        return NO_REFS
    if values and all(value.kind in (Kind.UNKNOWN, Kind.OBJECT) and not value.callable for value in values):
        return NO_REFS  # what is repeated is not known
    refs = state.operation(node, Category.SEARCH, f"{word} loop", *values)
    return refs.as_test(True)


def _sum_up(state: State, node: ast.For | ast.AsyncFor, container: Value, touched: int) -> None:
    """A loop over collected numbers that carries something sums it up, or finds an extreme."""
    if container.kind not in (Kind.LIST, Kind.DICT, Kind.SERIES, Kind.FRAME) or container.series:
        return
    if container.objects or state.graph.touched != touched or _holds_callables(container):
        return
    # sorted: a set has another order in each process, and operations are numbered
    for name in sorted(loop_shapes.carried(node)):
        value = state.find(name)
        if value is not None and value.kind in (Kind.NUMBER, Kind.UNKNOWN, Kind.STRING) and not value.fields:
            refs = state.operation(node, Category.TABLES, "loop over numbers", value, container)
            state.bind(name, derived(value.kind, value, refs=refs))


def _holds_callables(container: Value) -> bool:
    return any(item.callable for item in container.items)


def run_while(state: State, node: ast.While) -> End:
    test = state.evaluate(state, node.test)
    if truth(test) is False:
        return state.run(state, node.orelse)
    touched = state.graph.touched
    endless = truth(test) is True

    def once() -> End:
        return state.run(state, node.body)

    ways = [once] if endless else [once, lambda: End.PLAIN]
    state.loops.append(Value())
    try:
        with state.decided_by(test):
            first = branch(state, ways)
        test = state.evaluate(state, node.test)
        searching = _while_searches(state, node, test, touched)
        with state.decided_by(test, refs=searching):
            branch(state, ways)
    finally:
        state.loops.pop()
    return first if first is End.CALL and endless else _after(state, node)


def _while_searches(state: State, node: ast.While, test: Value, touched: int) -> Refs:
    if loop_shapes.takes_from_its_stack(node):
        refs = state.operation(node, Category.SEARCH, "while loop over a stack", test)
        return refs.as_test(True)
    if from_image(test) or state.graph.touched != touched:
        return NO_REFS
    names = frozenset(name for statement in node.body for name, _ in loop_shapes.assigned(statement))
    return _as_search(state, node, names, "while") if names else NO_REFS
