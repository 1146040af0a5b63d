"""Format of warnings in a cell's output: with the cell and the line that caused them, never with a path of the image.

Those about glyphs that no font has are collected and become one line at the end of the cell.
"""

from __future__ import annotations

import linecache
import re
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any, TextIO

_GLYPH = re.compile(r"Glyph (\d+) .*missing from font")
_MOST_GLYPHS = 20
_PROGRAM = str(Path(__file__).parent)
_missing: dict[str, None] = {}
_cell = ""


def begin_cell(filename: str) -> None:
    """Begins a cell: warnings without a place of their own belong to it."""
    global _cell
    _cell = filename
    _missing.clear()


def end_cell() -> None:
    """Prints in one line which characters could not be drawn."""
    if _missing:
        more = " ..." if len(_missing) > _MOST_GLYPHS else ""
        print(f"(No font here has a glyph for: {' '.join(list(_missing)[:_MOST_GLYPHS])}{more})")
        _missing.clear()


def install() -> None:
    """Makes `warnings` write as this module does, and keeps the interpreter's own frames out of tracebacks."""
    warnings.showwarning = _show
    warnings.formatwarning = _format
    _hide_own_frames()


def _show(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    if found := _GLYPH.match(str(message)):
        _missing[chr(int(found[1]))] = None
        return
    out = file or sys.stderr
    if out is not None:
        out.write(_format(message, category, filename, lineno, line))


def _format(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    # Warnings of libraries name their own line: that of the cell which called them says more.
    if not filename.startswith("<cell"):
        filename, lineno = _place()
    where = f"{filename}:{lineno}: " if lineno else f"{filename}: "
    source = (line or linecache.getline(filename, lineno)).strip() if lineno else ""
    return f"{where}{category.__name__}: {message}\n" + (f"  {source}\n" if source else "")


def _place() -> tuple[str, int]:
    """Returns the running cell and line; line 0 when its code has ended, as when an object is collected."""
    frame: Any = sys._getframe()
    while frame is not None:
        if frame.f_code.co_filename.startswith("<cell"):
            return frame.f_code.co_filename, frame.f_lineno
        frame = frame.f_back
    return _cell or "<cell>", 0


def _hide_own_frames() -> None:
    """Leaves the frames of this program out of what the module `traceback` prints for a cell (Python 3.11 to 3.13)."""
    # No public way: this is where `traceback` gets its frames from.
    summary: Any = traceback.StackSummary
    original = summary._extract_from_extended_frame_gen.__func__

    def extract(cls: type[Any], /, frames: Any, **options: Any) -> Any:
        own = (item for item in frames if not item[0].f_code.co_filename.startswith(_PROGRAM))
        return original(cls, own, **options)

    summary._extract_from_extended_frame_gen = classmethod(extract)
