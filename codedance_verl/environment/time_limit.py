"""A time limit for trajectories that does not run while they are paused.

Where training takes the devices of the rollouts (`colocate_async`), or weights are sent to vLLM (`separate_async`),
requests wait for as long as that takes. The trainer tells the rollout workers (`trainer/fault_tolerance.py`), and their
trajectories keep the time that they had left.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator


class Pauses:
    """The pauses of the trajectories in one event loop, and the limits that stand still during one."""

    def __init__(self) -> None:
        self.on = False
        self._limits: dict[asyncio.Timeout, float] = {}
        """Limits with the seconds they have left, as of the pause that is on; without one the values mean nothing."""

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
        async with asyncio.timeout(None if self.on else seconds) as limit:
            self._limits[limit] = seconds
            try:
                yield limit
            finally:
                del self._limits[limit]


@functools.cache
def pauses_of_process() -> Pauses:
    """The pauses of this process's rollout worker."""
    return Pauses()
