"""The progress of a training run in the terminal: a line a step, with step, reward, tool rate and what is left."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TextIO

from codedance_verl.metrics import catalogue
from codedance_verl.metrics.emit import finished_trajectories

LOOK_SECONDS = 1.0
RECENT_STEPS = 5


class Pace:
    """How long the rest of a run takes, by its last steps."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=RECENT_STEPS)

    def add(self, values: Mapping[str, float]) -> None:
        """A step has ended with these metrics of verl's; nothing is added without its time in them."""
        if (taken := values.get("timing_s/step", 0.0)) > 0:
            self._recent.append(taken + values.get("timing_s/testing", 0.0))

    def seconds_left(self, steps: int) -> float | None:
        """For so many more steps, 0 when it is less than none; None where no step has been timed."""
        return sum(self._recent) / len(self._recent) * max(steps, 0) if self._recent else None


class StepLines:
    """Makes the line of each step; `total` is the step at which the run ends, None where nobody knows."""

    def __init__(self, total: int | None) -> None:
        self._total = total
        self._pace = Pace()

    def line(self, step: int, values: Mapping[str, object]) -> str:
        """What a step's metrics say, in a few words."""
        numbers = {name: float(value) for name, value in values.items() if isinstance(value, int | float)}
        parts = [f"step {step}/{self._total}" if self._total else f"step {step}"]
        if (reward := numbers.get("critic/score/mean")) is not None:
            parts.append(f"reward {reward:.2f}")
        if (rate := _tool_rate(numbers)) is not None:
            parts.append(f"tools {rate:.0%}")
        self._pace.add(numbers)
        if (taken := numbers.get("timing_s/step")) is not None:
            parts.append(f"{taken:.0f} s")
        if self._total and (left := self._pace.seconds_left(self._total - step)) is not None:
            parts.append(f"{clock(left)} to go")
        return ", ".join(parts)


@contextlib.contextmanager
def step_lines(file: Path, total: int | None, stream: TextIO | None = None) -> Iterator[None]:
    """Inside the block, print a line for each step that the run adds to its metrics file."""
    stop = threading.Event()
    follower = threading.Thread(
        target=_follow, args=(file, StepLines(total), stream or sys.stdout, stop), name="step-lines", daemon=True
    )
    follower.start()
    try:
        yield
    finally:
        stop.set()
        follower.join()


def clock(seconds: float) -> str:
    """Seconds as m:ss, or h:mm:ss from an hour on."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _follow(file: Path, lines: StepLines, stream: TextIO, stop: threading.Event) -> None:
    position, ended = 0, False
    while not ended:
        ended = stop.wait(LOOK_SECONDS)  # and look once more after the end
        if not file.is_file():
            continue
        with file.open("rb") as source:
            source.seek(position)
            for line in source:
                if not line.endswith(b"\n"):  # it is being written
                    break
                position += len(line)
                _print(line, lines, stream)


def _print(line: bytes, lines: StepLines, stream: TextIO) -> None:
    with contextlib.suppress(ValueError, KeyError, TypeError, OSError):  # what cannot be shown must not end the run
        entry = json.loads(line)
        if int(entry["step"]) > 0 and "timing_s/step" in entry["data"]:
            print(
                f"{time.strftime('%H:%M:%S')} {lines.line(int(entry['step']), entry['data'])}", file=stream, flush=True
            )


def _tool_rate(numbers: Mapping[str, float]) -> float | None:
    """Share of the step's rollouts that have called the sandbox."""
    rollouts = finished_trajectories(numbers)
    return numbers.get(f"{catalogue.ROLLOUT_WITH_CALLS.tracker}/train", 0.0) / rollouts if rollouts else None
