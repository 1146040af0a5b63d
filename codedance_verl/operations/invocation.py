"""Record of a call of a library's function or method."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from codedance_verl.operations.values import Value


@dataclass(frozen=True)
class Invocation:
    """Call of a library's function.

    Attributes:
        node: of the syntax tree.
        path: dotted name.
        receiver: object of a method; None for a function, and for a method that is called on its class.
    """

    node: ast.AST
    path: str
    receiver: Value | None
    args: Sequence[Value]
    named: Mapping[str, Value]

    @property
    def name(self) -> str:
        """Last part of the dotted name."""
        return self.path.rpartition(".")[2]

    @property
    def operands(self) -> tuple[Value, ...]:
        """Object and arguments."""
        return (*([self.receiver] if self.receiver is not None else []), *self.args, *self.named.values())

    @property
    def subject(self) -> Value:
        """Object of a method, else the first argument."""
        if self.receiver is not None:
            return self.receiver
        return self.args[0] if self.args else next(iter(self.named.values()), Value())

    @property
    def rest(self) -> Sequence[Value]:
        """Arguments without the subject."""
        return self.args if self.receiver is not None else self.args[1:]

    def argument(self, position: int, name: str) -> Value | None:
        """Argument behind the subject by position from 0, or by name."""
        return self.named.get(name) or (self.rest[position] if position < len(self.rest) else None)
