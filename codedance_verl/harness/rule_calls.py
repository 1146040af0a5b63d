"""Calls of official rules beside the event loop, each bounded in time."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

AT_ONCE = 2
"""Rules that run at the same time: they hold the interpreter, so that more would only wait for each other."""

RULE_SECONDS = 60.0
"""Run time of one rule; most take microseconds, and their own bounds end the others after seconds."""

T = TypeVar("T")


class RuleCalls:
    """Runs functions in threads, few at once. One instance serves one event loop."""

    def __init__(self, limit_s: float = RULE_SECONDS, at_once: int = AT_ONCE) -> None:
        self._limit_s = limit_s
        self._slots = asyncio.Semaphore(at_once)

    async def call(self, function: Callable[..., T], *arguments: object) -> T:
        """Result of the function. Waiting for a slot is not in its time.

        Raises:
            TimeoutError: it runs longer; its thread is left behind, and ends with the process at the latest.
            Exception: what the function raises.
        """
        async with self._slots:
            # a rule that is given up frees its slot though its thread runs on: others must not wait for it
            return await asyncio.wait_for(_in_thread(function, arguments), self._limit_s)


def _in_thread(function: Callable[..., T], arguments: tuple[object, ...]) -> asyncio.Future[T]:
    """Future of the result. The thread is a daemon: one of a pool that hangs would hold up the end of the process."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: Exception | None) -> None:
        if future.done():  # given up
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def work() -> None:
        result, failure = None, None
        try:
            result = function(*arguments)
        except Exception as error:
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=work, name="rule", daemon=True).start()
    return future
