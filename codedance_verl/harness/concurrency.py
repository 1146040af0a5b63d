"""Number of questions at once, which adapts to what the endpoint takes: more by one a round, half after a refusal.

Additive increase and multiplicative decrease, as TCP has it (V. Jacobson, Congestion Avoidance and Control, 1988). A
refusal halves once for all requests that were sent before it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

FIRST = 8
"""Questions at once in the beginning, at most."""


class AdaptiveLimit:
    """Limit of what one event loop does at once, from 1 to `most`."""

    def __init__(self, most: int) -> None:
        self._most = float(most)
        self._limit = float(min(FIRST, most))  # an answer adds a fraction
        self._running = 0
        self._round = 0
        self._changed = asyncio.Condition()

    @property
    def limit(self) -> int:
        """Questions at once, at present."""
        return int(self._limit)

    @contextlib.asynccontextmanager
    async def place(self) -> AsyncIterator[int]:
        """Waits for a place and holds it within the block; gives the number that `refused` wants."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._running < self.limit)
            self._running += 1
        try:
            yield self._round
        finally:
            self._running -= 1  # before anything is awaited, where a second cancellation may strike
            await self._wake()

    async def answered(self) -> None:
        """Takes note of an answer; `limit` answers raise the limit by one."""
        self._limit = min(self._most, self._limit + 1 / self._limit)
        await self._wake()

    def refused(self, sent_in: int) -> None:
        """Takes note of a refusal of what was sent in a round; the first one of a round halves the limit."""
        if sent_in == self._round:
            self._round += 1
            self._limit = max(1.0, self._limit / 2)  # one must go on asking, or no answer could raise it

    async def _wake(self) -> None:
        async with self._changed:
            self._changed.notify_all()
