"""Parsing of a cell, bounded and without any effect."""

from __future__ import annotations

import ast
import re
import textwrap
import warnings

MOST_CHARACTERS = 100_000
"""Longest cell that is parsed."""

_UNREADABLE = (SyntaxError, ValueError, RecursionError, MemoryError)
"""Errors of Python's parser for code that is none, too deep, or has too long a number."""

_MAGIC = re.compile(r"^([ \t]*)[%!][^\n]*$", re.MULTILINE)


def parse(code: str) -> ast.Module | None:
    """Syntax tree of a cell; None where it has none.

    Lines of a notebook (`%matplotlib inline`, `!pip`) and an indented cell are no fault: the sandbox runs them.
    """
    if len(code) > MOST_CHARACTERS:
        return None
    tree = _parsed(code)
    if tree is not None:
        return tree
    plain = _MAGIC.sub(r"\1pass", textwrap.dedent(code.lstrip("\ufeff").replace("\0", "")))
    return _parsed(plain)


def _parsed(code: str) -> ast.Module | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of escapes in strings, which are the writer's
        try:
            return ast.parse(code)
        except _UNREADABLE:
            return None


def is_silenced(code: str, last: ast.expr) -> bool:
    """True where a semicolon follows the trailing expression."""
    # not `splitlines`, which also splits where Python's parser does not, as at a form feed
    lines = re.split(r"\r\n|\r|\n", code)
    line = (last.end_lineno or 1) - 1
    if line >= len(lines):
        return False
    # Offsets count bytes of UTF-8, not characters.
    rest = lines[line].encode("utf-8", "replace")[last.end_col_offset or 0 :].decode("utf-8", "replace")
    return any(";" in part.split("#", 1)[0] for part in (rest, *lines[line + 1 :]))
