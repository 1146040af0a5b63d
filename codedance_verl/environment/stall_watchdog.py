"""Stall watchdog: the trajectories in flight, their activities, and an end to all when none makes progress."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from codedance_verl.metrics import catalogue, emit

logger = logging.getLogger(__name__)

_REPORTED = 20
_CHECKS_PER_LIMIT = 10


class Phase(StrEnum):
    """Activity of a trajectory, by what it waits for."""

    PROMPT = "rendering its prompt"
    GENERATE = "vLLM"
    OPEN = "a sandbox session"
    EXECUTE = "its code"
    OBSERVE = "rendering an observation"


@dataclass(eq=False)
class TrackedRollout:
    """Trajectory in flight: its task, its activity and since when, on the monotonic clock in seconds."""

    record_id: str
    task: asyncio.Task[object] | None
    phase: Phase = Phase.PROMPT
    since: float = field(default_factory=time.monotonic)
    turn: int = 0
    stalled: bool = False


class StallWatchdog:
    """Watchdog over the trajectories of one event loop. `limit_s`: longest time in which none changes its phase."""

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self.ended = 0
        self._in_flight: set[TrackedRollout] = set()
        self._last_change = time.monotonic()
        self._paused = False
        self._checker: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def trajectory(self, record_id: str) -> Iterator[TrackedRollout]:
        """Watches the calling task while the block lasts; `stalled` is set when the watchdog has cancelled it."""
        progress = TrackedRollout(record_id, asyncio.current_task())
        self._in_flight.add(progress)
        emit.set_gauge(catalogue.ROLLOUTS_IN_FLIGHT, len(self._in_flight))
        self._last_change = time.monotonic()
        if self._checker is None or self._checker.done():
            self._checker = asyncio.get_running_loop().create_task(self._check())
        try:
            yield progress
        finally:
            self._in_flight.discard(progress)
            emit.set_gauge(catalogue.ROLLOUTS_IN_FLIGHT, len(self._in_flight))
            self._last_change = time.monotonic()

    def enter(self, progress: TrackedRollout, phase: Phase) -> None:
        """Notes that a trajectory changes its activity."""
        progress.phase, progress.since = phase, time.monotonic()
        self._last_change = progress.since

    def pause(self) -> None:
        """Suspends the limit: trajectories wait for training, which is no stall."""
        self._paused = True

    def resume(self) -> None:
        """Ends the suspension; `limit_s` begins now."""
        self._paused = False
        self._last_change = time.monotonic()

    def report(self) -> str:
        """Returns the count of trajectories by activity, and those that wait longest by name; a line each."""
        now = time.monotonic()
        waiting = sorted(self._in_flight, key=lambda item: item.since)
        counts = Counter(item.phase for item in waiting)
        lines = [f"{count} wait for {phase}" for phase, count in counts.most_common()]
        lines += [f"  {p.record_id}, turn {p.turn}: {p.phase}, {now - p.since:.0f} s" for p in waiting[:_REPORTED]]
        return "\n".join(lines)

    async def _check(self) -> None:
        """Checks the limit while any trajectory is in flight."""
        while self._in_flight:
            await asyncio.sleep(self.limit_s / _CHECKS_PER_LIMIT)
            if self._in_flight and not self._paused and time.monotonic() - self._last_change > self.limit_s:
                self._end_all()

    def _end_all(self) -> None:
        """Cancels every trajectory: one that waits for another's turn would otherwise keep waiting."""
        logger.error("no rollout has made progress for %g s; ending them. %s", self.limit_s, self.report())
        self.ended += len(self._in_flight)
        for progress in self._in_flight:
            progress.stalled = True  # set first: the cancelled task reads it to tell a stall from other cancellations
            if progress.task is not None:
                progress.task.cancel()


@functools.cache
def watchdog_of_process(limit_s: float) -> StallWatchdog:
    """Returns the one watchdog of this process, shared by the rollout worker and its agent loops."""
    return StallWatchdog(limit_s)
