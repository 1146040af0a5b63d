"""Runs one cell in a namespace with notebook semantics and describes what went wrong in a few lines."""

from __future__ import annotations

import ast
import linecache
import traceback
from types import FrameType, TracebackType
from typing import Any

from .display import Display

ERROR_CHARS = 2_000
SHOWN_FRAMES = 6

Error = dict[str, str]


def run_cell(code: str, number: int, namespace: dict[str, Any], display: Display) -> Error | None:
    """Execute `code` in `namespace`; show its trailing expression and open figures. Returns the error, if any.

    `number` counts the cells of the session from 1 and names the cell in tracebacks. A cell that ends by `exit()` or
    `sys.exit()` with no or a zero code has succeeded.
    """
    filename = f"<cell {number}>"
    linecache.cache[filename] = (len(code), None, code.splitlines(keepends=True), filename)
    error: Error | None = None
    try:
        _execute(code, filename, namespace, display)
    except SystemExit as leaving:
        if leaving.code not in (None, 0):
            error = describe(leaving)
    except BaseException as raised:
        error = describe(raised)
    try:
        display.show_open_figures()
    except BaseException as raised:
        error = error or describe(raised)
    return error


def _execute(code: str, filename: str, namespace: dict[str, Any], display: Display) -> None:
    tree = ast.parse(code, filename)
    last = tree.body[-1] if tree.body else None
    if not isinstance(last, ast.Expr) or code.rstrip().endswith(";"):
        exec(compile(tree, filename, "exec", dont_inherit=True), namespace)
        return
    tree.body.pop()
    exec(compile(tree, filename, "exec", dont_inherit=True), namespace)
    value = eval(compile(ast.Expression(last.value), filename, "eval", dont_inherit=True), namespace)
    if value is not None:
        display.show(value)


def describe(raised: BaseException) -> Error:
    """Class name, message and a traceback that names only lines of cells, each part bounded in length."""
    kind = type(raised).__name__
    message = _clip(_message(raised))
    if isinstance(raised, SyntaxError) and (raised.filename or "").startswith("<cell"):
        lines = _syntax_lines(raised)
    else:
        lines = _frame_lines(raised.__traceback__)
    return {
        "kind": kind,
        "message": message,
        "traceback": "\n".join([*lines, f"{kind}: {message}" if message else kind]),
    }


def _message(raised: BaseException) -> str:
    try:
        return str(raised.msg) if isinstance(raised, SyntaxError) else str(raised)
    except BaseException:
        return "(the exception has no printable message)"


def _clip(text: str) -> str:
    return text if len(text) <= ERROR_CHARS else text[:ERROR_CHARS] + "…"


def _syntax_lines(raised: SyntaxError) -> list[str]:
    text = (raised.text or "").rstrip("\n")[:200]
    lines = [f"line {raised.lineno}: {text.strip()}"] if text else [f"line {raised.lineno}:"]
    return ["Traceback:", *("  " + line for line in lines)]


def _frame_lines(trace: TracebackType | None) -> list[str]:
    frames: list[tuple[FrameType, int]] = [
        (frame, line) for frame, line in traceback.walk_tb(trace) if frame.f_code.co_filename.startswith("<cell")
    ]
    if not frames:
        return []
    half = SHOWN_FRAMES // 2
    shown = frames if len(frames) <= SHOWN_FRAMES else frames[:half] + frames[-half:]
    lines = [_frame_line(frame, line) for frame, line in shown]
    if len(shown) < len(frames):
        lines.insert(half, f"  … {len(frames) - len(shown)} more …")
    return ["Traceback:", *lines]


def _frame_line(frame: FrameType, line: int) -> str:
    where = frame.f_code.co_filename.strip("<>")
    function = "" if frame.f_code.co_name == "<module>" else f", in {frame.f_code.co_name}"
    source = linecache.getline(frame.f_code.co_filename, line).strip()[:200]
    return f"  {where}, line {line}{function}: {source}"
