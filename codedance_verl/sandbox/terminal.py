"""Printed text as a terminal shows it in the end: progress bars collapsed, escape sequences gone."""

from __future__ import annotations

import re

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_STEP = re.compile(
    r"(?P<text>[^\r\n\x08\x1b]+)"
    r"|(?P<move>[\r\n\x08])"
    r"|\x1b\[(?P<parameters>[0-?]*)[ -/]*(?P<final>[@-~])"  # CSI: colours, cursor, erasing
    r"|\x1b[\]PX^_][^\x07\x1b\n]*(?:\x07|\x1b\\)?"  # OSC and its like: titles, links
    r"|\x1b[ -/]*[0-~]?"  # two or three characters
)


def as_seen(text: str) -> str:
    """Returns `text` as a terminal shows it in the end; one without control characters as it is. Time is linear.

    Carriage return, backspace and "cursor up" lead back to what stands there, which is written over; "erase line"
    erases; all other sequences and control characters but tab and newline leave nothing.
    """
    if not _CONTROL.search(text):
        return text
    screen = _Screen()
    # Every alternative takes at least one character and none is tried twice, so time is linear.
    for step in _STEP.finditer(text.replace("\r\n", "\n")):
        if move := step["move"]:
            screen.move(move)
        elif step["text"] is not None:
            screen.write(_CONTROL.sub("", step["text"]))
        else:
            screen.control(step["final"], step["parameters"])
    return screen.text()


class _Screen:
    """Rows of characters, the place where the next is written, and the rows that anything led back to."""

    def __init__(self) -> None:
        self._rows: list[list[str]] = [[]]
        self._changed: set[int] = set()
        self._row = 0
        self._column = 0

    def move(self, where: str) -> None:
        if where == "\n":
            self._row += 1
            if self._row == len(self._rows):
                self._rows.append([])
        else:
            self._changed.add(self._row)
        self._column = max(0, self._column - 1) if where == "\b" else 0

    def write(self, text: str) -> None:
        cells = self._rows[self._row]
        # Overwrites what is there and appends beyond its end.
        cells[self._column : self._column + len(text)] = text
        self._column += len(text)

    def control(self, final: str | None, parameters: str | None) -> None:
        self._changed.add(self._row)
        if final == "A":
            # Six digits or more are no number of lines but a way to spend time.
            count = int(parameters) if parameters and parameters.isdecimal() and len(parameters) < 6 else 1
            self._row = max(0, self._row - count)
        elif final == "K" and parameters in ("", "0", "2"):
            del self._rows[self._row][0 if parameters == "2" else self._column :]

    def text(self) -> str:
        """Returns all rows; one that was written over loses the blanks at its end, which wiped out old text."""
        rows = ("".join(row) for row in self._rows)
        return "\n".join(row.rstrip(" ") if at in self._changed else row for at, row in enumerate(rows))
