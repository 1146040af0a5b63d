"""CPU time of a program by part: functions are replaced by ones that time themselves, each without what it calls."""

from __future__ import annotations

import contextlib
import functools
import importlib
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from unittest import mock


class Stopwatch:
    """CPU seconds by part, of all threads; `calls` counts the calls of each part's functions."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.calls: dict[str, int] = defaultdict(int)
        self._lock = threading.Lock()
        self._inner = threading.local()

    @contextlib.contextmanager
    def watching(self, parts: Mapping[str, str]) -> Iterator[None]:
        """Times functions by their place, `module:name` or `module:Class.name`; the value is the part they count for.

        Only plain functions: the time of a coroutine function would be that of making the coroutine.
        """
        with contextlib.ExitStack() as patches:
            for place, part in parts.items():
                owner, name = _found(place)
                patches.enter_context(mock.patch.object(owner, name, self._timed(_raw(owner, name), part)))
            yield

    def _timed(self, function: Any, part: str) -> Any:
        if isinstance(function, staticmethod | classmethod):
            return type(function)(self._timed(function.__func__, part))

        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            outer, self._inner.seconds = getattr(self._inner, "seconds", 0.0), 0.0
            started = time.thread_time()
            try:
                return function(*args, **kwargs)
            finally:
                spent = time.thread_time() - started
                with self._lock:
                    self.seconds[part] += spent - self._inner.seconds
                    self.calls[part] += 1
                self._inner.seconds = outer + spent

        return timed


def _found(place: str) -> tuple[Any, str]:
    module, _, path = place.partition(":")
    owner: Any = importlib.import_module(module)
    *classes, name = path.split(".")
    for each in classes:
        owner = getattr(owner, each)
    return owner, name


def _raw(owner: Any, name: str) -> Callable[..., Any] | staticmethod[..., Any] | classmethod[Any, ..., Any]:
    """Returns a function as its class holds it, which may be a parent."""
    for each in getattr(owner, "__mro__", ()):
        if name in vars(each):
            return vars(each)[name]  # type: ignore[no-any-return]
    return getattr(owner, name)  # type: ignore[no-any-return]
