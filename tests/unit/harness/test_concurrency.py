"""Concurrency: one more after each round of answers, half after a refusal, once for all that it was sent with."""

from __future__ import annotations

import asyncio

from codedance_verl.harness.concurrency import FIRST, AdaptiveLimit


async def answers(limit: AdaptiveLimit, number: int) -> None:
    for _ in range(number):
        async with limit.place():
            pass
        await limit.answered()


def test_it_rises_by_one_a_round_up_to_the_most() -> None:
    async def run() -> list[int]:
        limit = AdaptiveLimit(10)
        seen = [limit.limit]
        await answers(limit, FIRST + 1)
        seen.append(limit.limit)
        await answers(limit, 200)
        return [*seen, limit.limit]

    assert asyncio.run(run()) == [FIRST, FIRST + 1, 10]


def test_refusals_of_one_round_halve_it_once() -> None:
    async def run() -> list[int]:
        limit = AdaptiveLimit(64)
        seen = []
        async with limit.place() as first, limit.place() as second:
            limit.refused(first)
            limit.refused(second)
        seen.append(limit.limit)
        for _ in range(10):
            async with limit.place() as later:
                limit.refused(later)
        return [*seen, limit.limit]

    assert asyncio.run(run()) == [FIRST // 2, 1]


def test_no_more_run_than_the_limit_says() -> None:
    async def run() -> int:
        limit, running, peak = AdaptiveLimit(3), 0, 0

        async def work() -> None:
            nonlocal running, peak
            async with limit.place():
                running += 1
                peak = max(peak, running)
                await asyncio.sleep(0.001)
                running -= 1

        await asyncio.gather(*(work() for _ in range(20)))
        return peak

    assert asyncio.run(run()) == 3
