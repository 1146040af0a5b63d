"""Runs one cell in a namespace with notebook semantics and describes what went wrong in a few lines."""

from __future__ import annotations

import ast
import builtins
import contextlib
import inspect
import linecache
import traceback
from dataclasses import dataclass
from types import CodeType, FrameType, TracebackType
from typing import Any

from . import hints, loop, source, warning_text
from .display import Display

ERROR_CHARS = 2_000
SHOWN_FRAMES = 6
MOST_REMEMBERED_BYTES = 32 * 1024 * 1024
"""Largest value kept as `_`: the session holds it until the next."""

_COROUTINE = inspect.CO_COROUTINE

Error = dict[str, str]


def run_cell(code: str, number: int, namespace: dict[str, Any], display: Display) -> Error | None:
    """Executes `code` in `namespace`; shows its trailing expression and open figures. Returns the error, if any.

    `number` counts the cells of the session from 1 and names the cell in tracebacks. A cell that ends by `exit()` or
    `sys.exit()` with no or a zero code has succeeded.
    """
    filename = f"<cell {number}>"
    # Without a modification time: `linecache` then takes no look at the disk, where there is no such file.
    linecache.cache[filename] = (len(code), None, code.splitlines(keepends=True), filename)
    warning_text.begin_cell(filename)
    trailing = _Trailing(filename)
    error: Error | None = None
    try:
        _execute(code, trailing, namespace, display)
    # `exit()` is how scripts end, and no failure.
    except SystemExit as leaving:
        if leaving.code not in (None, 0):
            error = describe(leaving, trailing.place())
    except BaseException as raised:
        error = describe(raised, trailing.place())
    try:
        display.show_open_figures()
        _end_magics()
        warning_text.end_cell()
    except BaseException as raised:
        error = error or describe(raised, [f"  cell {number}, at its end: the figures still open are shown"])
    return error


@dataclass
class _Trailing:
    """The trailing expression of a cell; `line` is 0 until it is being shown."""

    filename: str
    line: int = 0

    def place(self) -> list[str]:
        """Returns its line for a traceback, as long as it is being shown."""
        return [_source_line(self.filename, self.line)] if self.line else []


def _execute(code: str, trailing: _Trailing, namespace: dict[str, Any], display: Display) -> None:
    tree, text = source.parse(code, trailing.filename)
    last = tree.body[-1] if tree.body else None
    if not isinstance(last, ast.Expr) or source.is_silenced(text, last.value):
        _run([_compiled(tree, trailing.filename)], namespace)
        return
    # The value is wanted of the last expression alone, so it is compiled apart.
    tree.body.pop()
    value = _run(
        [_compiled(tree, trailing.filename), _compiled(ast.Expression(last.value), trailing.filename)], namespace
    )
    if value is not None:
        trailing.line = last.lineno
        _remember(value)
        display.show(value)
        del value
        trailing.line = 0


def _compiled(tree: ast.Module | ast.Expression, filename: str) -> CodeType:
    mode = "exec" if isinstance(tree, ast.Module) else "eval"
    # `dont_inherit`: else the `__future__` import of this file would hold for cells.
    code: CodeType = compile(tree, filename, mode, ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    return code


def _run(parts: list[CodeType], namespace: dict[str, Any]) -> Any:
    """Runs the parts of a cell, in an event loop if one of them awaits something. Returns the value of the last."""
    if any(part.co_flags & _COROUTINE for part in parts):
        return loop.run(_run_awaiting(parts, namespace))
    value = None
    for part in parts:
        value = eval(part, namespace)
    return value


async def _run_awaiting(parts: list[CodeType], namespace: dict[str, Any]) -> Any:
    value = None
    for part in parts:
        value = eval(part, namespace)
        if part.co_flags & _COROUTINE:
            value = await value
    return value


def _remember(value: Any) -> None:
    """Makes `value` the `_` of later cells, unless it is large or a coroutine, whose warning would come late."""
    with contextlib.suppress(Exception):  # attributes of a cell's own classes can do anything
        if not hasattr(value, "cr_frame") and _bytes_of(value) <= MOST_REMEMBERED_BYTES:
            builtins._ = value  # type: ignore[attr-defined]


def _bytes_of(value: Any) -> int:
    size = getattr(value, "nbytes", None)
    if isinstance(size, int):
        return size
    shape = getattr(value, "size", None)
    return shape[0] * shape[1] * 4 if isinstance(shape, tuple) and len(shape) == 2 else 0


def _end_magics() -> None:
    notebook = getattr(builtins, "__notebook__", None)
    if notebook is not None:
        notebook.end_cell()


def describe(raised: BaseException, place: list[str] | None = None) -> Error:
    """Returns class name, message and a traceback that names only lines of cells, each part bounded in length.

    `place` stands for the traceback where no line of a cell is in it.
    """
    kind = type(raised).__name__
    message = hints.explained(raised, _clip(_message(raised)))
    if isinstance(raised, SyntaxError) and (raised.filename or "").startswith("<cell"):
        lines = _syntax_lines(raised)
    else:
        lines = _frame_lines(raised.__traceback__) or (["Traceback:", *place] if place else [])
    error = {
        "kind": kind,
        "message": message,
        "traceback": "\n".join([*lines, f"{kind}: {message}" if message else kind]),
    }
    # A lone surrogate in a message could not be sent: msgpack has UTF-8 alone.
    return {key: text.encode("utf-8", "backslashreplace").decode("utf-8") for key, text in error.items()}


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
    # Only cells: frames of libraries and of this program tell the model nothing it can change.
    frames: list[tuple[FrameType, int]] = [
        (frame, line) for frame, line in traceback.walk_tb(trace) if frame.f_code.co_filename.startswith("<cell")
    ]
    if not frames:
        return []
    # The first frames say what was called, the last where it failed; recursion lies between.
    half = SHOWN_FRAMES // 2
    shown = frames if len(frames) <= SHOWN_FRAMES else frames[:half] + frames[-half:]
    lines = [_frame_line(frame, line) for frame, line in shown]
    if len(shown) < len(frames):
        lines.insert(half, f"  … {len(frames) - len(shown)} more …")
    return ["Traceback:", *lines]


def _frame_line(frame: FrameType, line: int) -> str:
    name = frame.f_code.co_name
    return _source_line(frame.f_code.co_filename, line, "" if name == "<module>" else f", in {name}")


def _source_line(filename: str, line: int, function: str = "") -> str:
    return f"  {filename.strip('<>')}, line {line}{function}: {linecache.getline(filename, line).strip()[:200]}"
