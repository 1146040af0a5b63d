"""Runs one cell in a namespace with notebook semantics and describes what went wrong in a few lines."""

from __future__ import annotations

import ast
import builtins
import contextlib
import inspect
import linecache
import traceback
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
    shown_line = 0  # of the trailing expression, as long as it is being shown
    error: Error | None = None
    try:
        value, line = _execute(code, filename, namespace)
        if value is not None:
            shown_line = line
            _remember(value)
            display.show(value)
            shown_line = 0
        del value
    except BaseException as raised:
        # `exit()` is how scripts end, and no failure.
        if not (isinstance(raised, SystemExit) and raised.code in (None, 0)):
            error = describe(raised, [_source_line(filename, shown_line)] if shown_line else [])
    try:
        display.show_open_figures()
        if notebook := getattr(builtins, "__notebook__", None):
            notebook.end_cell()
        warning_text.end_cell()
    except BaseException as raised:
        error = error or describe(raised, [f"  cell {number}, at its end: the figures still open are shown"])
    return error


def _execute(code: str, filename: str, namespace: dict[str, Any]) -> tuple[Any, int]:
    """Runs a cell. Returns the value of its trailing expression, None where it shows none, and the line of that."""
    tree, text = source.parse(code, filename)
    last = tree.body[-1] if tree.body else None
    if not isinstance(last, ast.Expr) or source.is_silenced(text, last.value):
        _run([_compiled(tree, filename)], namespace)
        return None, 0
    # The value is wanted of the last expression alone, so it is compiled apart.
    tree.body.pop()
    parts = [_compiled(tree, filename), _compiled(ast.Expression(last.value), filename)]
    return _run(parts, namespace), last.lineno


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


def describe(raised: BaseException, place: list[str] | None = None) -> Error:
    """Returns class name, message and a traceback that names only lines of cells, each part bounded in length.

    `place` stands for the traceback where no line of a cell is in it.
    """
    kind = type(raised).__name__
    message = hints.explained(raised, _message(raised))
    if isinstance(raised, SyntaxError) and (raised.filename or "").startswith("<cell"):
        text = (raised.text or "").rstrip("\n")[:200]
        lines = ["Traceback:", f"  line {raised.lineno}:{f' {text.strip()}' if text else ''}"]
    else:
        lines = _frame_lines(raised.__traceback__) or (["Traceback:", *place] if place else [])
    trace = "\n".join([*lines, f"{kind}: {message}" if message else kind])
    error = {"kind": kind, "message": message, "traceback": trace}
    # A lone surrogate in a message could not be sent: msgpack has UTF-8 alone.
    return {key: text.encode("utf-8", "backslashreplace").decode("utf-8") for key, text in error.items()}


def _message(raised: BaseException) -> str:
    try:
        text = str(raised.msg if isinstance(raised, SyntaxError) else raised)
    except BaseException:
        return "(the exception has no printable message)"
    return text if len(text) <= ERROR_CHARS else text[:ERROR_CHARS] + "…"


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
    lines = [_source_line(frame.f_code.co_filename, line, frame.f_code.co_name) for frame, line in shown]
    if len(shown) < len(frames):
        lines.insert(half, f"  … {len(frames) - len(shown)} more …")
    return ["Traceback:", *lines]


def _source_line(filename: str, line: int, function: str = "<module>") -> str:
    where = "" if function == "<module>" else f", in {function}"
    return f"  {filename.strip('<>')}, line {line}{where}: {linecache.getline(filename, line).strip()[:200]}"
