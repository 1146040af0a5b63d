"""Limit on the time of a training step."""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Callable

from codedance_verl.runtime.watchdog import Watchdog

CHECKS_PER_LIMIT = 20


class StepWatchdog:
    """Calls `stalled`, once, with the name of the work that takes longer than `limit_s` seconds; None sets no limit.

    Where `stalled` fails it is called again at the next check.
    """

    def __init__(self, limit_s: float | None, stalled: Callable[[str], None]) -> None:
        self._limit_s = limit_s
        self._stalled = stalled
        self._current: tuple[str, float] | None = None  # one attribute: the thread must never mix two pieces of work
        if limit_s is not None:
            Watchdog(limit_s / CHECKS_PER_LIMIT, self._poll, "step-watchdog")

    def begin(self, work: str) -> None:
        """Starts the clock of another piece of work."""
        self._current = (work, time.monotonic())

    def rest(self) -> None:
        """Stops the clock: nothing is in progress."""
        self._current = None

    def _poll(self) -> bool:
        current = self._current
        if current is None or self._limit_s is None or time.monotonic() - current[1] <= self._limit_s:
            return False
        self._stalled(current[0])
        return True


def stack_of(thread: threading.Thread, inside: str) -> str:
    """Returns the calls of a thread, from the outermost in a file whose path contains `inside` to the innermost."""
    frame = sys._current_frames().get(thread.ident or 0)
    calls = traceback.extract_stack(frame) if frame is not None else []
    first = next((index for index, call in enumerate(calls) if inside in call.filename), 0)
    return "\n".join(f"  {call.name} ({call.filename}:{call.lineno})" for call in calls[first:])
