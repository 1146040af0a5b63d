"""What each call of a trajectory was worth, from its execution record and its code; stdout is never read."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Sequence
from enum import StrEnum

from codedance_verl.types import ExecutionStatus, Trajectory, Turn


class CallKind(StrEnum):
    """How a call ended, as far as the reward cares."""

    INVALID = "invalid"  # it could not be read, nothing was run
    FAILED = "failed"  # an exception, a time-out, or the session was lost
    IDLE = "idle"  # it ran, and does nothing: comments, `pass`, bare constants
    REPEATED = "repeated"  # it ran, and so did the same code before
    HELPFUL = "helpful"  # it ran, and was something new

    @property
    def went_wrong(self) -> bool:
        return self in (CallKind.INVALID, CallKind.FAILED)

    @property
    def ran(self) -> bool:
        """True where code ran to its end and did something."""
        return self in (CallKind.HELPFUL, CallKind.REPEATED)


def call_kinds(trajectory: Trajectory) -> tuple[CallKind | None, ...]:
    """The kind of each turn's call, in order; None for a turn whose code was not run, and for one without a call."""
    seen: set[str] = set()
    kinds = []
    for turn in trajectory.turns:
        kind = _kind(turn, seen)
        if kind is CallKind.HELPFUL and turn.code is not None:
            seen.add(_bare(turn.code))
        kinds.append(kind)
    return tuple(kinds)


def count(kinds: Sequence[CallKind | None], *wanted: CallKind) -> int:
    """How many calls are of one of these kinds; of any kind if none is given."""
    return sum(kind is not None and (not wanted or kind in wanted) for kind in kinds)


def _kind(turn: Turn, seen: set[str]) -> CallKind | None:
    execution = turn.execution
    if execution is None:
        return None
    if execution.status is ExecutionStatus.REJECTED:
        return CallKind.INVALID
    if not execution.succeeded:
        return CallKind.FAILED
    if turn.code is None:  # the record says it ran; the text is in a format that is not known here
        return CallKind.HELPFUL
    if not does_something(turn.code):
        return CallKind.IDLE
    return CallKind.REPEATED if _bare(turn.code) in seen else CallKind.HELPFUL


_STATEMENT = re.compile(r"^[^\W\d]\w*(?:\.\w+)*[ \t]*(?:=|\(|\[)|^(?:import|from|for|with|if)\b", re.MULTILINE)
_MAY_HIDE_CODE = ('"""', "'''", "\\\n")


@functools.lru_cache(maxsize=4096)
def does_something(code: str) -> bool:
    """False for code of comments, `pass`, and bare constants only.

    Code that this Python cannot parse, though another one ran it, is given the benefit of the doubt.
    """
    if _STATEMENT.search(code) and not any(mark in code for mark in _MAY_HIDE_CODE):
        return True  # an assignment, a call or an import, seen without the cost of a parser
    try:
        body = ast.parse(code).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return True
    return not all(
        isinstance(statement, ast.Pass)
        or (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant))
        for statement in body
    )


def _bare(code: str) -> str:
    """The code without comment lines, blank lines and space at the ends of lines."""
    lines = (line.rstrip() for line in code.split("\n"))
    return "\n".join(line for line in lines if line and not line.lstrip().startswith("#"))
