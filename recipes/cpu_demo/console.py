"""Output of the demo: one line per stage, live on a terminal, now and then into a file."""

from __future__ import annotations

import shutil
import sys
import time
from typing import TextIO

QUIET_S = 30.0
"""Into a file or a pipe a running stage says something at most this often."""


class Console:
    """Prints progress. On a terminal the running stage's line is rewritten in place."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._live = self._stream.isatty()
        self._open_line = False
        self._last_update = time.monotonic()

    def line(self, text: str = "") -> None:
        """A line of its own."""
        self._close_line()
        print(text, file=self._stream, flush=True)
        self._last_update = time.monotonic()

    def update(self, text: str) -> None:
        """The running stage's line."""
        if self._live:
            width = shutil.get_terminal_size().columns
            self._stream.write(f"\r\x1b[K{text[: width - 1]}")
            self._stream.flush()
            self._open_line = True
        elif time.monotonic() - self._last_update >= QUIET_S:
            self.line(text)

    def _close_line(self) -> None:
        if self._open_line:
            self._stream.write("\r\x1b[K")
            self._open_line = False
