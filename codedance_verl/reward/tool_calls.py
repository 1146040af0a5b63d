"""Kinds of the calls of a trajectory, from their execution records and their code; stdout is never read."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Sequence
from enum import StrEnum

from codedance_verl.types import ExecutionStatus, Trajectory, Turn


class CallKind(StrEnum):
    """End of a call, as far as the reward cares."""

    INVALID = "invalid"  # it could not be read, nothing was run
    FAILED = "failed"  # an exception, a time-out, or the session was lost
    IDLE = "idle"  # it ran, and does nothing: comments, `pass`, bare constants
    REPEATED = "repeated"  # it ran, and so did the same code before, comments and layout aside
    HELPFUL = "helpful"  # it ran, and was something new

    @property
    def went_wrong(self) -> bool:
        return self in (CallKind.INVALID, CallKind.FAILED)

    @property
    def ran(self) -> bool:
        """True where code ran to its end and did something."""
        return self in (CallKind.HELPFUL, CallKind.REPEATED)


def call_kinds(trajectory: Trajectory) -> tuple[CallKind | None, ...]:
    """Returns the kind of each turn's call, in order; None for a turn without one, or whose code was not run."""
    seen: _Seen = {}
    kinds = []
    for turn in trajectory.turns:
        kind = _kind(turn, seen)
        if kind is CallKind.HELPFUL and turn.code is not None:
            seen.setdefault(_skeleton(turn.code), []).append(turn.code)
        kinds.append(kind)
    return tuple(kinds)


def count(kinds: Sequence[CallKind | None], *wanted: CallKind) -> int:
    """Counts the calls of one of these kinds; of any kind if none is given."""
    return sum(kind is not None and (not wanted or kind in wanted) for kind in kinds)


_Seen = dict[str, list[str]]
"""Code that ran before, by its skeleton."""


def _kind(turn: Turn, seen: _Seen) -> CallKind | None:
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
    return CallKind.REPEATED if _ran_before(turn.code, seen) else CallKind.HELPFUL


# A line that begins with a name and then `=`, `(` or `[`, or with a keyword that always does something: an effect for
# certain, unless the line lies in a string or goes on from the line before, which `_MAY_HIDE_CODE` finds.
_STATEMENT = re.compile(
    r"^(?!(?:if|while|not)\b)[^\W\d]\w*(?:\.\w+)*[ \t]*(?:=|\(|\[)|^(?:import|from|for|with)\b", re.MULTILINE
)
_MAY_HIDE_CODE = ('"""', "'''", "\\\n")
_DOES_NOTHING = (
    *(ast.Module, ast.Pass, ast.Expr, ast.If, ast.While),
    *(ast.Constant, ast.UnaryOp, ast.unaryop, ast.JoinedStr, ast.FormattedValue),
    *(ast.Tuple, ast.List, ast.Set, ast.Dict, ast.expr_context),
)
"""Nodes without an effect where no other node is among them."""

UNREADABLE = (SyntaxError, ValueError, RecursionError, MemoryError)
"""Errors of Python's parser and `ast.dump` for code that is none, too deep, or has too long a number."""


@functools.lru_cache(maxsize=4096)
def does_something(code: str) -> bool:
    """False for code of comments, `pass`, and bare constants only: signs, brackets and branches make no more of them.

    Code that this Python cannot parse, though another one ran it, is given the benefit of the doubt.
    """
    if _STATEMENT.search(code) and not any(mark in code for mark in _MAY_HIDE_CODE):
        return True  # an assignment, a call or an import, seen without the cost of a parser
    try:
        tree = ast.parse(code)
    except UNREADABLE:
        return True
    # one node outside of the list is enough: a name that is looked up may fail, a call or an operator may do anything
    return not all(isinstance(node, _DOES_NOTHING) for node in ast.walk(tree))


def _ran_before(code: str, seen: _Seen) -> bool:
    others = seen.get(_skeleton(code), [])
    # equal trees have equal skeletons, so nothing is missed; equal skeletons may differ in meaning ("a b" and "ab")
    return code in others or any(_meaning(code) == _meaning(other) for other in others)


_COMMENT = re.compile(r"#[^\r\n]*")
_LAYOUT = str.maketrans("", "", " \t\r\n\f();,'\"\\")


def _skeleton(code: str) -> str:
    """Returns the text that the same code has in common however it is commented and laid out; other code may share it.

    Only code with an equal skeleton needs the parser, which takes most of the time here.
    """
    return _COMMENT.sub("", code).translate(_LAYOUT)


@functools.lru_cache(maxsize=4096)
def _meaning(code: str) -> str:
    """Returns the syntax tree of the code as text; the code without comment lines where this Python cannot parse it."""
    try:
        return ast.dump(ast.parse(code))
    except UNREADABLE:
        return _bare(code)


def _bare(code: str) -> str:
    """Returns the code without comment lines, blank lines and space at the ends of lines."""
    lines = (line.rstrip() for line in code.split("\n"))
    return "\n".join(line for line in lines if line and not line.lstrip().startswith("#"))
