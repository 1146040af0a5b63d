"""Time limit of trajectories that does not run while they are paused.

Where training takes the devices of the rollouts (`colocate_async`), or weights are sent to vLLM (`separate_async`),
requests wait for as long as that takes. The trainer pauses the rollout workers (`trainer/fault_tolerance.py`), and
their trajectories keep the time that they had left.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator

from codedance_verl.environment.stall_watchdog import watchdog_of_process


class Pauses:
    """Pauses of the trajectories in one event loop, and the limits that stand still during one."""

    def __init__(self) -> None:
        self.on = False
        self._limits: dict[asyncio.Timeout, float] = {}
        """Limits with the seconds left at the begin of the present pause; outside of a pause the values are stale."""

    def begin(self) -> None:
        """Stops the clock of every limit; does nothing in a pause."""
        if self.on:
            return
        self.on = True
        now = asyncio.get_running_loop().time()
        for limit in self._limits:
            due = limit.when()
            if due is not None and not limit.expired():
                self._limits[limit] = due - now
                limit.reschedule(None)

    def end(self) -> None:
        """Lets every limit run on with what it had left; does nothing without a pause."""
        if not self.on:
            return
        self.on = False
        now = asyncio.get_running_loop().time()
        for limit, left in self._limits.items():
            if limit.when() is None:
                limit.reschedule(now + left)

    @contextlib.asynccontextmanager
    async def limit(self, seconds: float) -> AsyncIterator[asyncio.Timeout]:
        """Raises `TimeoutError` in the block once it has run for so many seconds, pauses left out.

        As `asyncio.timeout`, whose object it gives: `expired` says whether this limit was the cause.
        """
        # in a pause the clock does not start: `end` schedules every limit that has no due time
        async with asyncio.timeout(None if self.on else seconds) as limit:
            self._limits[limit] = seconds
            try:
                yield limit
            finally:
                del self._limits[limit]


@functools.cache
def pauses_of_process() -> Pauses:
    """Returns the pauses of this process's rollout worker."""
    return Pauses()


class Clocks:
    """Clocks of this process's rollout worker: the time limits of its trajectories, and its stall watchdog.

    Ray may run calls of an asynchronous actor in another order than they were sent in, so pauses and their ends are
    numbered.
    """

    def __init__(self, stall_s: float) -> None:
        self.watchdog = watchdog_of_process(stall_s)
        self._pauses = pauses_of_process()
        self._latest = 0

    def pause(self, number: int) -> None:
        """Stops the clocks.

        Args:
            number: rises with every call of this and of `resume`; a call that a later one has overtaken does nothing.
        """
        if self._is_latest(number):
            self._pauses.begin()
            self.watchdog.pause()

    def resume(self, number: int) -> None:
        """Starts the clocks again; `number` as in `pause`."""
        if self._is_latest(number):
            self._pauses.end()
            self.watchdog.resume()

    def _is_latest(self, number: int) -> bool:
        latest, self._latest = number > self._latest, max(number, self._latest)
        return latest
