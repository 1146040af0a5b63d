"""Sandbox session of one trajectory: opened when first needed, asked for again when refused, always closed."""

from __future__ import annotations

import asyncio
import functools
import logging
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import TypeVar

from codedance_verl.sandbox.errors import SandboxBusy, SandboxUnavailable
from codedance_verl.sandbox.pool import SandboxPool, SandboxSession
from codedance_verl.types import Execution

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0

T = TypeVar("T")
_logger = logging.getLogger(__name__)


class SandboxClient:
    """Client that runs the code of one trajectory.

    `connect` finds the pool when code is first run; a trajectory without code asks for none. `images` returns the
    files of the question's images, in a thread of its own; None without any. `retries` counts the refusals so far.
    """

    def __init__(
        self, connect: Callable[[], SandboxPool], images: Callable[[], Sequence[bytes]] | None, most_retries: int
    ) -> None:
        self._connect = connect
        self._images = images
        self._most_retries = most_retries
        self._session: SandboxSession | None = None
        self.retries = 0

    async def run(self, code: str, resources: AsyncExitStack) -> tuple[Execution, float]:
        """Runs one cell; also returns the seconds it waited. `resources` closes the session.

        Raises:
            SandboxError: the sandbox refuses more often than it may, or gives no answer.
        """
        started = time.perf_counter()
        if self._session is None:
            self._session = await self._with_retries(lambda: self._open(resources))
        execution = await self._with_retries(functools.partial(self._session.run, code))
        return execution, max(time.perf_counter() - started - execution.duration_s, 0.0)

    async def _open(self, resources: AsyncExitStack) -> SandboxSession:
        images = () if self._images is None else await asyncio.to_thread(self._images)
        return await resources.enter_async_context(self._connect().session(*images))

    async def _with_retries(self, attempt: Callable[[], Awaitable[T]]) -> T:
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                return await attempt()
            except (SandboxBusy, SandboxUnavailable) as error:
                if self.retries >= self._most_retries:
                    raise
                self.retries += 1
                _logger.info("the sandbox refuses (%s); asking again", error)
            # spread over time, so that the rollouts of a batch do not come back all at once
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
