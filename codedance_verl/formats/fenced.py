"""Fenced code blocks as models write them: any label of Python, any length, indented, with fences in their strings."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, replace

SHORTEST = 3
LINE = r"(?P<indent>[ \t]*)(?P<marks>`{3,})(?P<info>[^`\n]*)$"
"""Pattern of the line that opens a block, from its begin on; to be compiled with `re.MULTILINE`."""

_PYTHON = re.compile(r"[{.\s]*i?py(?:thon)?[\d.]*(?![\w+#-])", re.IGNORECASE | re.ASCII)
_REST_OF_LINE = re.compile(r"[ \t\r]*\n?")
_SPACE = re.compile(r"\s*")
_RUN = re.compile(r"`+")

_COMMENT = "#"
_STRING_BEGINS = re.compile(r"#|'''|\"\"\"|'|\"")
_STRING_ENDS = {
    _COMMENT: re.compile(r"\n"),
    "'''": re.compile(r"\\.|'''", re.DOTALL),
    '"""': re.compile(r'\\.|"""', re.DOTALL),
    "'": re.compile(r"\\.|'|\n", re.DOTALL),
    '"': re.compile(r'\\.|"|\n', re.DOTALL),
}
"""Ends of a comment and of each kind of string, by what begins it; a backslash skips the character behind it."""


@dataclass(frozen=True)
class Block:
    """Fenced block that has ended.

    Attributes:
        code: source, without the indentation of the fence; None for another language, or where no fence closes it.
        end: position behind the closing fence and its line break, or of the tag that ended the block instead.
        closed: a fence closes it for sure, whatever may follow.
    """

    code: str | None
    end: int
    closed: bool = True


def is_python(info: str) -> bool:
    """Returns whether the info string of a fence is empty or names Python, in any case (`python3`, `{py}`)."""
    return not info.strip() or _PYTHON.match(info) is not None


def read_block(text: str, opening: re.Match[str], tag: str | None = None) -> Block | None:
    """Reads the block that begins with a line; None where it does not end within the text.

    A closing fence is at least as long as the opening one, alone in its line or at the end of the last line of code.
    One within a string of the code closes nothing. Takes time linear in what is read.

    Args:
        text: the whole text.
        opening: match of `LINE` in it.
        tag: ends a block that has no closing fence, unless it stands in a string or a comment of the code. A fence
            right before it closes the block even if a string is open, or if it is shorter than the opening one.
    """
    return _Reader(text, opening, tag).read()


def render_fence(code: str) -> str:
    """Returns the code in a fence that is longer than any in it."""
    longest = max((len(run) for run in _RUN.findall(code)), default=0)
    fence = "`" * max(SHORTEST, longest + 1)
    return f"{fence}python\n{code}\n{fence}"


@functools.lru_cache(maxsize=4)
def _ends(tag: str | None) -> re.Pattern[str]:
    """Returns the pattern of what may end a block: a fence at the end of a line or in front of the tag, or the tag."""
    before = r"$" if tag is None else rf"(?:$|{re.escape(tag)})"
    fence = rf"(?:(?P<alone>^[ \t]*)|(?<!`))(?P<marks>`{{3,}})(?=[ \t\r]*{before})"
    return re.compile(fence if tag is None else rf"{fence}|{re.escape(tag)}", re.MULTILINE)


class PythonText:
    """Reader of Python source in `text` from `start` on, forwards once: all questions together take linear time.

    The source need not be valid.
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
            pattern = _STRING_BEGINS if self._inside is None else _STRING_ENDS[self._inside]
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


class _Reader:
    """Reader of one block; see `read_block`."""

    def __init__(self, text: str, opening: re.Match[str], tag: str | None) -> None:
        self._text = text
        self._tag = tag
        self._marks = len(opening["marks"])
        self._indent = len(opening["indent"])
        self._start = min(opening.end() + 1, len(text))  # behind the line break
        self._source = PythonText(text, self._start) if is_python(opening["info"]) else None

    def read(self) -> Block | None:
        last: re.Match[str] | None = None
        for found in _ends(self._tag).finditer(self._text, self._start):
            if found["marks"] is None:
                if not self._in_string(found.start()):
                    return Block(None, found.start(), closed=False)
            elif self._closes(found):
                return self._block(found)
            elif found["alone"] is not None and len(found["marks"]) >= self._marks and self._source is not None:
                last = found
        if last is None or self._tag is not None:
            return None
        return replace(self._block(last), closed=False)  # its code has a string that is never closed

    def _closes(self, fence: re.Match[str]) -> bool:
        long = len(fence["marks"]) >= self._marks
        if self._source is None:
            return long and fence["alone"] is not None
        at_tag = self._at_tag(fence.end())
        return (at_tag and long) or ((at_tag or long) and not self._in_string(fence.start("marks")))

    def _at_tag(self, position: int) -> bool:
        space = _SPACE.match(self._text, position)
        return self._tag is not None and space is not None and self._text.startswith(self._tag, space.end())

    def _in_string(self, position: int) -> bool:
        return self._source is not None and self._source.inside(position)

    def _block(self, fence: re.Match[str]) -> Block:
        rest = _REST_OF_LINE.match(self._text, fence.end())
        end = fence.end() if rest is None else rest.end()
        if self._source is None:
            return Block(None, end)
        alone = fence["alone"] is not None
        until = max(fence.start() - 1, self._start) if alone else fence.start("marks")
        return Block(_outdented(self._text[self._start : until], self._indent), end)


def _outdented(code: str, indent: int) -> str:
    """Returns the code without the indentation of its fence, as far as each line of it has that."""
    if not indent:
        return code
    lines = code.split("\n")
    # lines within a string do not narrow the margin: their indentation is content, and may be less than the code's
    source, at, margin = PythonText(code, 0), 0, indent
    for line in lines:
        if line.strip() and not source.inside(at):
            margin = min(margin, len(line) - len(line.lstrip(" \t")))
        at += len(line) + 1
    spaces = re.compile(rf"[ \t]{{0,{margin}}}")
    return "\n".join(spaces.sub("", line, count=1) for line in lines)
