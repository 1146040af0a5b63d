"""Progress of a training run in the terminal: a line a step, with reward, tool rate and the time left."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TextIO

from codedance_verl.metrics import catalogue
from codedance_verl.metrics.emit import finished_trajectories
from codedance_verl.runtime.watchdog import Watchdog

POLL_SECONDS = 1.0
RECENT_STEPS = 5


class Pace:
    """Estimate of a run's remaining time, from its last `RECENT_STEPS` steps."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=RECENT_STEPS)

    def add(self, values: Mapping[str, float]) -> None:
        """Adds a step by verl's metrics of it; metrics without its time add nothing."""
        if (taken := values.get("timing_s/step", 0.0)) > 0:
            # verl's step timer stops before the validation, whose time is shared out over the steps of the mean
            self._recent.append(taken + values.get("timing_s/testing", 0.0))

    def seconds_left(self, steps: int) -> float | None:
        """Returns the estimate for so many more steps; None where no step has been timed."""
        return sum(self._recent) / len(self._recent) * max(steps, 0) if self._recent else None


class StepLines:
    """Maker of the line of each step; `total` is the last step of the run, None for an open end."""

    def __init__(self, total: int | None) -> None:
        self._total = total
        self._pace = Pace()

    def line(self, step: int, values: Mapping[str, object]) -> str:
        """Returns a line of a step's metrics."""
        numbers = {name: float(value) for name, value in values.items() if isinstance(value, int | float)}
        parts = [f"step {step}/{self._total}" if self._total else f"step {step}"]
        if (reward := numbers.get("critic/score/mean")) is not None:
            parts.append(f"reward {reward:.2f}")
        if rollouts := finished_trajectories(numbers):
            with_calls = numbers.get(f"{catalogue.ROLLOUT_WITH_CALLS.tracker}/train", 0.0)
            parts.append(f"tools {with_calls / rollouts:.0%}")
        self._pace.add(numbers)
        if (taken := numbers.get("timing_s/step")) is not None:
            parts.append(f"{taken:.0f} s")
        if self._total and (left := self._pace.seconds_left(self._total - step)) is not None:
            parts.append(f"{clock(left)} to go")
        return ", ".join(parts)


@contextlib.contextmanager
def step_lines(file: Path, total: int | None, stream: TextIO | None = None) -> Iterator[None]:
    """Prints a line for each step that the run adds to its metrics file inside the block."""
    lines, out, position = StepLines(total), stream or sys.stdout, 0

    def poll() -> None:
        """Prints what was added since the last call. A file that cannot be read must not end the run."""
        nonlocal position
        with contextlib.suppress(OSError), file.open("rb") as source:
            source.seek(position)
            for line in source:
                if not line.endswith(b"\n"):  # it is being written
                    break
                position += len(line)
                _print(line, lines, out)

    try:
        with Watchdog(POLL_SECONDS, poll, "step-lines"):
            yield
    finally:
        poll()  # the lines of the last second


def clock(seconds: float) -> str:
    """Returns seconds as m:ss, or h:mm:ss from an hour on."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _print(line: bytes, lines: StepLines, stream: TextIO) -> None:
    with contextlib.suppress(ValueError, KeyError, TypeError, OSError):  # what cannot be shown must not end the run
        entry = json.loads(line)
        if int(entry["step"]) > 0 and "timing_s/step" in entry["data"]:
            shown = lines.line(int(entry["step"]), entry["data"])
            print(time.strftime("%H:%M:%S"), shown, file=stream, flush=True)
