"""A folder for Ray: paths of its sockets must stay below 108 characters, and those of pytest's folders do not."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def short_folder() -> Iterator[Path]:
    """It is gone at the end, with whatever a process that is just ending still writes into it."""
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp", ignore_cleanup_errors=True) as folder:
        yield Path(folder)
