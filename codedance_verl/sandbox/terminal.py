"""Printed text as a person at a terminal would see it in the end: progress bars collapsed, escape sequences gone."""

from __future__ import annotations

import re

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\x80-\x9f]")
_SEQUENCE = re.compile(
    r"\x1b\[(?P<parameters>[0-?]*)[ -/]*(?P<final>[@-~])"  # CSI: colours, cursor, erasing
    r"|\x1b[\]PX^_][^\x07\x1b\n]*(?:\x07|\x1b\\)?"  # OSC and its like: titles, links
    r"|\x1b[ -/]*[0-~]?"  # two or three characters
)
_STEP = re.compile(r"(?P<text>[^\r\x08\x1b]+)|(?P<move>[\r\x08])|" + _SEQUENCE.pattern)


def as_seen(text: str) -> str:
    """`text` after a terminal has shown it; time grows with its length only. A text without control is returned as is.

    Carriage returns and backspaces write over what stands there, "erase line" erases, all other sequences and control
    characters but tab and newline leave nothing.
    """
    if not _CONTROL.search(text):
        return text
    return "\n".join(_line(line) for line in text.split("\n"))


def _line(line: str) -> str:
    line = line.rstrip("\r")
    if not _CONTROL.search(line):
        return line
    cells: list[str] = []
    column = 0
    for step in _STEP.finditer(line):
        if move := step["move"]:
            column = 0 if move == "\r" else max(0, column - 1)
        elif (written := step["text"]) is not None:
            written = _CONTROL.sub("", written)
            cells[column : column + len(written)] = written
            column += len(written)
        elif step["final"] == "K" and step["parameters"] in ("", "0", "2"):
            del cells[0 if step["parameters"] == "2" else column :]
    return "".join(cells)
