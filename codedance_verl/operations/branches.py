"""Branches: ways that a program may take, from the same names, and what holds after any of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from codedance_verl.operations.state import End, Scope, State
from codedance_verl.operations.values import joined


def branch(state: State, ways: Sequence[Callable[[], End]]) -> End:
    """Takes each way from the same names, and joins what they leave. Ways that end the call leave nothing."""
    scope = state.frame.scopes[-1]
    # The names are copied once a way: many of them cost as much as many steps.
    state.step(1 + len(scope) // 16)
    before = dict(scope)
    left: list[Scope] = []
    ends: list[End] = []
    for way in ways:
        # The scope stays the same object: functions that were defined in it see it too.
        scope.clear()
        scope.update(before)
        end = way()
        ends.append(end)
        if end is not End.CALL:
            left.append(dict(scope))
    scope.clear()
    scope.update(before)
    if left:
        merge(scope, *left)
    if End.PLAIN in ends:
        return End.PLAIN
    return End.LOOP if End.LOOP in ends else End.CALL


def merge(before: Scope, *branches: Scope) -> None:
    """Makes `before` what holds after any one of the branches, each a scope that began as a copy of it."""
    for name in {name for branch in branches for name in branch}:
        before[name] = joined(branch[name] for branch in branches if name in branch)
    # deleted on every way; what only one of them deletes may still be there
    for name in [name for name in before if all(name not in branch for branch in branches)]:
        del before[name]
