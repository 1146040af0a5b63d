"""Bounded concurrency with results in the order of the input."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


async def in_order(items: Sequence[A], work: Callable[[A], Awaitable[B]], at_once: int) -> list[B]:
    """Results of `work` for each item, in the order of the items; `at_once` of them run at the same time.

    Raises what the first one raises that fails; the others are cancelled.
    """
    results: dict[int, B] = {}
    numbers = iter(range(len(items)))

    async def worker() -> None:
        for number in numbers:  # shared: each takes the next one
            results[number] = await work(items[number])

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(at_once, len(items))):
                group.create_task(worker())
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None  # without the group: callers catch by type
    return [results[number] for number in range(len(items))]
