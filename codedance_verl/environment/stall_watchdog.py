"""Who waits for what: the trajectories of this process, and an end to them when none makes progress any more."""

from __future__ import annotations

import asyncio
import contextlib
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
    """What a trajectory is at, or waits for."""

    PROMPT = "rendering its prompt"
    GENERATE = "vLLM"
    OPEN = "a sandbox session"
    EXECUTE = "its code"
    OBSERVE = "rendering an observation"


@dataclass(eq=False)
class Progress:
    """One trajectory that is under way."""

    record_id: str
    task: asyncio.Task[object] | None
    phase: Phase = Phase.PROMPT
    since: float = field(default_factory=time.monotonic)
    turn: int = 0
    stalled: bool = False


class StallWatchdog:
    """The trajectories under way in one event loop. `limit_s`: how long none of them may change its phase."""

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self.ended = 0
        self._under_way: set[Progress] = set()
        self._last_change = time.monotonic()
        self._paused = False
        self._guard: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def trajectory(self, record_id: str) -> Iterator[Progress]:
        """Watch the calling task for as long as the block lasts; `stalled` is set when the watch has cancelled it."""
        progress = Progress(record_id, asyncio.current_task())
        self._under_way.add(progress)
        emit.set_gauge(catalogue.ROLLOUT_UNDER_WAY, len(self._under_way))
        self._last_change = time.monotonic()
        if self._guard is None or self._guard.done():
            self._guard = asyncio.get_running_loop().create_task(self._look())
        try:
            yield progress
        finally:
            self._under_way.discard(progress)
            emit.set_gauge(catalogue.ROLLOUT_UNDER_WAY, len(self._under_way))
            self._last_change = time.monotonic()

    def enter(self, progress: Progress, phase: Phase) -> None:
        """Note that a trajectory goes on with something else."""
        progress.phase, progress.since = phase, time.monotonic()
        self._last_change = progress.since

    def pause(self) -> None:
        """Trajectories wait for training from now on, which is no stall."""
        self._paused = True

    def resume(self) -> None:
        """They go on; `limit_s` begins now."""
        self._paused = False
        self._last_change = time.monotonic()

    def report(self) -> str:
        """How many wait for what, and those that wait longest, by name."""
        now = time.monotonic()
        waiting = sorted(self._under_way, key=lambda item: item.since)
        counts = Counter(item.phase for item in waiting)
        lines = [f"{count} wait for {phase}" for phase, count in counts.most_common()]
        lines += [f"  {p.record_id}, turn {p.turn}: {p.phase}, {now - p.since:.0f} s" for p in waiting[:_REPORTED]]
        return "\n".join(lines)

    async def _look(self) -> None:
        """Runs while there is anything to watch."""
        while self._under_way:
            await asyncio.sleep(self.limit_s / _CHECKS_PER_LIMIT)
            if self._under_way and not self._paused and time.monotonic() - self._last_change > self.limit_s:
                self._end_all()

    def _end_all(self) -> None:
        logger.error("no rollout has made progress for %g s; ending them. %s", self.limit_s, self.report())
        self.ended += len(self._under_way)
        for progress in self._under_way:
            progress.stalled = True
            if progress.task is not None:
                progress.task.cancel()
