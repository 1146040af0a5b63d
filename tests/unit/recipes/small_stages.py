"""Stages of a few lines of Python, and a driver for them that can be killed."""

from __future__ import annotations

import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from recipes.cpu_demo.stages import Stage

PATIENCE_S = 20.0


def stage(out: Path, name: str, code: str, **settings: Any) -> Stage:
    """A stage that runs `code` with `out` (the demo's folder) and `folder` (its own, made) defined."""
    folder = out / name
    head = (
        f"from pathlib import Path\nout, folder = Path({str(out)!r}), Path({str(folder)!r})\n"
        "folder.mkdir(exist_ok=True)\n"
    )
    command = (sys.executable, "-c", head + textwrap.dedent(code))
    return Stage(name, name, command, **{"folder": folder, "timeout_s": 30.0, "expected_s": 1.0, **settings})


def wait_for(condition: Callable[[], Any]) -> Any:
    """The first true value of `condition`. Raises AssertionError after PATIENCE_S."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError(f"nothing happened within {PATIENCE_S:.0f} s")


def number_in(file: Path) -> int | None:
    """A process number that a stage wrote, once it has."""
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None
