"""Program that calls a user function on request, started by `function`.

Its arguments are the dotted path `package.module:function` and the number of arguments that the function takes.

Request: {"arguments": [...]}. Answer: {"value": JSON}, or {"error": reason} where the function raised or returned what
is neither None, a truth value, a number, a text, nor a tuple or list of these.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import resource
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from codedance_verl.isolated.loop import Handler, limit, serve

MEMORY_BYTES = 8 << 30
"""Limit on the process's memory: a function that needs more gets a MemoryError, and the machine keeps the rest."""

_MAX_REASON_CHARS = 300
_MAX_TEXT_CHARS = 10_000
_MAX_ITEMS = 100


def _prepare() -> Handler:
    # RLIMIT_DATA, not RLIMIT_AS: libraries such as torch reserve far more address space than they ever write to
    limit(resource.RLIMIT_DATA, MEMORY_BYTES)
    path, count = sys.argv[2], int(sys.argv[3])
    function = load(path)
    _check_takes(function, count)
    return functools.partial(_answer, function)


def load(path: str) -> Callable[..., Any]:
    """Returns the function at a dotted path. Raises `ValueError` with the reason where there is none."""
    module_name, _, name = path.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except BaseException as error:  # a module may raise what it likes, SystemExit too
        raise ValueError(f"module {module_name} cannot be imported ({describe(error)})") from None
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise ValueError(f"module {module_name} has no {name}") from None
    if not callable(found):
        raise ValueError(f"{name} is no function but {_kind(found)}")
    if inspect.iscoroutinefunction(found):
        raise ValueError(f"{name} is async; a plain function is called")
    function: Callable[..., Any] = found
    return function


def describe(error: BaseException) -> str:
    """Returns an exception in one bounded line: class, message, and the line of the user's file that raised it."""
    text = " ".join(f"{type(error).__name__}: {_text_of(error)}".split())[:_MAX_REASON_CHARS].rstrip(": ")
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    own = [frame for frame in frames if "importlib" not in frame.filename]
    return f"{text} at {own[-1].filename.rsplit('/', 1)[-1]}:{own[-1].lineno}" if own else text


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # its __str__ is the user's too
        return "(its text cannot be had)"


def _check_takes(function: Callable[..., Any], count: int) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some functions written in C have none
        return
    try:
        signature.bind(*[None] * count)
    except TypeError as error:
        raise ValueError(f"it cannot be called with {count} arguments ({error})") from None


def _answer(function: Callable[..., Any], request: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        found = function(*request["arguments"])
    except BaseException as error:  # SystemExit and KeyboardInterrupt too: only this call is lost
        return {"error": describe(error)}
    try:
        return {"value": _plain(found)}
    except ValueError as error:
        return {"error": str(error)}


def _plain(value: Any, nested: bool = False) -> Any:
    """Converts a value to JSON types; numpy's scalars become Python's. Raises `ValueError` for what JSON has not."""
    if type(value).__module__ == "numpy" and getattr(value, "shape", None) == ():
        value = value.item()
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        if abs(value) >= 1 << 63:
            raise ValueError("it returned a whole number of more than 63 bits")
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, str):
        return value[:_MAX_TEXT_CHARS]
    if isinstance(value, tuple | list) and not nested and len(value) <= _MAX_ITEMS:
        return [_plain(item, nested=True) for item in value]
    raise ValueError(f"it returned {_kind(value)}{' inside of a list' if nested else ''}")


def _kind(value: object) -> str:
    return f"a value of type {type(value).__name__}"[:_MAX_REASON_CHARS]


if __name__ == "__main__":
    serve(_prepare)
