"""A limit on the time of a training step, and a report of who waits for what where it is exceeded."""

from __future__ import annotations

import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable

CHECKS_PER_LIMIT = 20

_logger = logging.getLogger(__name__)


class StepWatch:
    """Calls `stalled`, once, with what takes longer than `limit_s` seconds; None watches nothing.

    Where `stalled` fails it is called again at the next look.
    """

    def __init__(self, limit_s: float | None, stalled: Callable[[str], None]) -> None:
        self._limit_s = limit_s
        self._stalled = stalled
        self._current: tuple[str, float] | None = None
        if limit_s is not None:
            threading.Thread(target=self._look, args=(limit_s,), name="step-watch", daemon=True).start()

    def begin(self, what: str) -> None:
        """Another piece of work begins, and so does its time."""
        self._current = (what, time.monotonic())

    def rest(self) -> None:
        """Nothing is under way."""
        self._current = None

    def _look(self, limit_s: float) -> None:
        while True:
            time.sleep(limit_s / CHECKS_PER_LIMIT)
            current = self._current
            if current is None or time.monotonic() - current[1] <= limit_s:
                continue
            try:
                self._stalled(current[0])
                return
            except Exception as error:
                _logger.warning("%s has taken more than %g s, which cannot be told: %s", current[0], limit_s, error)


def where_is(thread: threading.Thread, inside: str) -> str:
    """The calls a thread is in, from the outermost in a file whose path contains `inside` to the innermost of all."""
    frame = sys._current_frames().get(thread.ident or 0)
    calls = traceback.extract_stack(frame) if frame is not None else []
    first = next((index for index, call in enumerate(calls) if inside in call.filename), 0)
    return "\n".join(f"  {call.name} ({call.filename}:{call.lineno})" for call in calls[first:])
