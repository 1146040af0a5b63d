"""Texts of a model or its code made fit for a page: bounded, and nothing in them unseen.

Escaping is left to Jinja2, which does it everywhere; the only markup made here is that of Pygments.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from codedance_verl.runtime.text import visible

SHOWN_CHARS = 6_000
"""Of one text on a page; the whole of it is behind a link, as plain text."""

SHOWN_CODE_CHARS = 20_000

_PYTHON = PythonLexer(stripnl=False)
_PLAIN_CLASSES = HtmlFormatter(nowrap=True)


@dataclass(frozen=True)
class Shown:
    """A text as it stands on a page: its head and its tail, and the number of characters that were left out."""

    head: str
    tail: str = ""
    left_out: int = 0

    def __bool__(self) -> bool:
        return bool(self.head)


def templates(*folders: Path, **filters: Callable[..., str]) -> Environment:
    """The templates of folders, the first that has a name counts, with everything escaped and these filters."""
    environment = Environment(
        loader=FileSystemLoader(folders),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= filters
    return environment


def shown(value: str, limit: int = SHOWN_CHARS) -> Shown:
    """Head and tail of a text, so that both together have no more than `limit` characters."""
    if len(value) <= limit:
        return Shown(visible(value))
    head = limit * 3 // 4
    tail = limit - head
    return Shown(visible(value[:head]), visible(value[-tail:]), len(value) - limit)


def python(code: str, limit: int = SHOWN_CODE_CHARS) -> Markup:
    """Code with its tokens in spans; of more than `limit` characters the rest is left out."""
    return Markup(highlight(visible(code[:limit]), _PYTHON, _PLAIN_CLASSES))  # Pygments escapes what it wraps
