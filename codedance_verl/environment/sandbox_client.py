"""Sandbox session of one trajectory: opened when first needed or a little before, asked for again, always closed."""

from __future__ import annotations

import asyncio
import functools
import logging
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from enum import StrEnum, auto
from typing import TypeVar

from codedance_verl.sandbox.errors import SandboxBusy, SandboxUnavailable, UnknownSession
from codedance_verl.sandbox.pool import SandboxPool, SandboxSession
from codedance_verl.types import Execution

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0

T = TypeVar("T")
_logger = logging.getLogger(__name__)


class EarlyOpening(StrEnum):
    """Outcome of a session opened before its first cell: there was none, it was used by a cell, or closed without one.

    A session that is refused, or not open yet when its trajectory ends, was none.
    """

    NONE = auto()
    USED = auto()
    IN_VAIN = auto()


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
        self._early: asyncio.Task[SandboxSession] | None = None
        self.retries = 0

    @property
    def unopened(self) -> bool:
        """Returns whether no session is open, nor being opened."""
        return self._session is None and self._early is None

    @property
    def early(self) -> EarlyOpening:
        """Returns what came of `open_early`, once the trajectory has ended."""
        task = self._early
        if task is None or not task.done() or task.cancelled() or task.exception() is not None:
            return EarlyOpening.NONE
        return EarlyOpening.USED if self._session is task.result() else EarlyOpening.IN_VAIN

    def open_early(self, resources: AsyncExitStack) -> None:
        """Begins to open the session, once, and returns at once; `resources` closes it.

        A refusal counts for nothing: `run` then asks for the session as if this had not been called.
        """
        if not self.unopened:
            return
        # a stack of its own: `resources` may be closing while the task opens
        opened = AsyncExitStack()
        self._early = asyncio.create_task(self._open(opened))
        resources.push_async_exit(opened)
        resources.push_async_callback(_ended, self._early)

    async def run(self, code: str, resources: AsyncExitStack) -> tuple[Execution, float]:
        """Runs one cell; also returns the seconds it waited. `resources` closes the session.

        Raises:
            SandboxError: the sandbox refuses more often than it may, or gives no answer.
        """
        started = time.perf_counter()
        if self._session is None:
            execution = await self._run_first(code, resources)
        else:
            execution = await self._with_retries(functools.partial(self._session.run, code))
        return execution, max(time.perf_counter() - started - execution.duration_s, 0.0)

    async def _run_first(self, code: str, resources: AsyncExitStack) -> Execution:
        self._session = await self._opened(resources)
        try:
            return await self._with_retries(functools.partial(self._session.run, code))
        except UnknownSession as error:  # its lease has ended while the call was being sampled; it had no variables yet
            _logger.info("the sandbox has closed the session before its first cell (%s); opening another", error)
        self._session = await self._with_retries(lambda: self._open(resources))
        return await self._with_retries(functools.partial(self._session.run, code))

    async def _opened(self, resources: AsyncExitStack) -> SandboxSession:
        if self._early is not None:
            try:
                return await self._early
            except (SandboxBusy, SandboxUnavailable) as error:
                _logger.info("the sandbox refuses (%s); asking again", error)
        return await self._with_retries(lambda: self._open(resources))

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


async def _ended(task: asyncio.Task[SandboxSession]) -> None:
    """Ends the task; its error is the business of whoever needed the session."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
