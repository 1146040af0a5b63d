"""Periodic checks from a thread: limits of a run, a stalled step, lost nodes."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable

JOIN_SECONDS = 30.0
"""Longest wait for a check in progress when the watchdog is stopped: a disk or a GCS may not answer."""

_logger = logging.getLogger(__name__)


class Watchdog(contextlib.AbstractContextManager["Watchdog"]):
    """Calls `poll` every `seconds`, in a daemon thread, until it returns True or the watchdog is stopped.

    An error of `poll` is logged and costs that one call: what does not answer now may answer the next time.
    """

    def __init__(self, seconds: float, poll: Callable[[], bool | None], name: str) -> None:
        self._seconds, self._poll, self._name = seconds, poll, name
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def stopped(self) -> bool:
        """True from the call of `stop` on."""
        return self._stopped.is_set()

    def stop(self) -> None:
        """Ends the checks. The one in progress is waited for, `JOIN_SECONDS` at most."""
        self._stopped.set()
        self._thread.join(JOIN_SECONDS)

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _run(self) -> None:
        while not self._stopped.wait(self._seconds):
            try:
                if self._poll():
                    return
            except Exception as error:
                _logger.warning("%s: a check has failed, the next one follows: %s", self._name, error)
