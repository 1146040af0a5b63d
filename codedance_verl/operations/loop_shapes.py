"""Shapes of loops: what they carry from pass to pass, and what decides within them."""

from __future__ import annotations

import ast
from collections.abc import Iterator


def assigned(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Names that statements below a node assign, each with its statement."""
    for part in ast.walk(node):
        match part:
            case ast.Assign(targets=targets):
                yield from ((name, part) for target in targets for name in _names(target))
            case ast.AugAssign(target=target) | ast.AnnAssign(target=target) | ast.NamedExpr(target=target):
                yield from ((name, part) for name in _names(target))


def _names(target: ast.expr) -> Iterator[str]:
    for part in ast.walk(target):
        if isinstance(part, ast.Name):
            yield part.id


def read(node: ast.AST | None) -> frozenset[str]:
    """Names that are read below a node."""
    if node is None:
        return frozenset()
    return frozenset(
        part.id for part in ast.walk(node) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Load)
    )


def carried(node: ast.For | ast.AsyncFor | ast.While) -> frozenset[str]:
    """Names whose value in one pass depends on that of the pass before."""
    found: set[str] = set()
    for statement in node.body:
        for name, by in assigned(statement):
            if isinstance(by, ast.AugAssign) or (isinstance(by, ast.Assign) and name in read(by.value)):
                found.add(name)
        for guard in ast.walk(statement):
            # an extreme: `if x > best: best = x` tests the very name that it assigns
            if isinstance(guard, ast.If):
                found |= read(guard.test) & {name for name, _ in assigned(guard)}
    return frozenset(found)


def is_guarded(node: ast.For | ast.AsyncFor | ast.While) -> bool:
    """True where a test within the loop decides on what a pass does."""
    return any(isinstance(part, ast.If) for statement in node.body for part in ast.walk(statement))


def takes_from_its_stack(node: ast.While) -> bool:
    """True for `while stack: ... stack.pop()`, which goes through a graph, whatever its nodes are."""
    stacks = read(node.test)
    return any(
        isinstance(part, ast.Call)
        and isinstance(part.func, ast.Attribute)
        and part.func.attr in ("pop", "popleft", "get")
        and isinstance(part.func.value, ast.Name)
        and part.func.value.id in stacks
        for statement in node.body
        for part in ast.walk(statement)
    )


def counts_by(node: ast.AugAssign) -> bool:
    """True for `n += 1`: a counter, no arithmetic."""
    return isinstance(node.op, ast.Add | ast.Sub) and isinstance(node.value, ast.Constant)
