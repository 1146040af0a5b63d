"""Lexical state of Python source: strings and comments by position. The source need not be valid."""

from __future__ import annotations

import re

_COMMENT = "#"
_BEGINS = re.compile(r"#|'''|\"\"\"|'|\"")
_ENDS = {
    _COMMENT: re.compile(r"\n"),
    "'''": re.compile(r"\\.|'''", re.DOTALL),
    '"""': re.compile(r'\\.|"""', re.DOTALL),
    "'": re.compile(r"\\.|'|\n", re.DOTALL),
    '"': re.compile(r'\\.|"|\n', re.DOTALL),
}


class PythonText:
    """Reader of Python source in `text` from `start` on, forwards once: all questions together take linear time.

    A string in single quotes ends with its line, closed or not, so one missing quote does not hide what follows. In a
    raw string a backslash keeps a quote from closing it as well, as in Python. An f-string is read like other strings.
    """

    def __init__(self, text: str, start: int) -> None:
        self._text = text
        self._at = start
        self._inside: str | None = None

    def inside(self, position: int) -> bool:
        """Returns whether a string or comment is open in front of `position`, which is never before an earlier one."""
        while self._at < position:
            pattern = _BEGINS if self._inside is None else _ENDS[self._inside]
            found = pattern.search(self._text, self._at, position)
            if found is None:
                self._at = position
            else:
                self._at = found.end()
                self._inside = self._after(found.group())
        return self._inside is not None

    def _after(self, mark: str) -> str | None:
        """Returns the kind of string or comment that is open behind a mark."""
        if self._inside is None:
            return mark
        return self._inside if mark.startswith("\\") else None
