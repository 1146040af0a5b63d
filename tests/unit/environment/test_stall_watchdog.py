from __future__ import annotations

import asyncio
import logging

import pytest

from codedance_verl.environment.stall_watchdog import Phase, StallWatchdog

pytestmark = pytest.mark.asyncio


async def test_who_waits_for_what_is_told_and_ended_when_nobody_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    watch = StallWatchdog(limit_s=0.2)

    async def wait(record_id: str, phase: Phase) -> bool:
        with watch.trajectory(record_id) as progress:
            progress.turn = 2
            watch.enter(progress, phase)
            with pytest.raises(asyncio.CancelledError):
                await asyncio.sleep(60)
            return progress.stalled

    with caplog.at_level(logging.ERROR):
        ended = await asyncio.gather(wait("a-1", Phase.GENERATE), wait("b-2", Phase.OPEN))
    assert ended == [True, True] and watch.ended == 2
    assert "1 wait for vLLM" in caplog.text and "b-2, turn 2: a sandbox session" in caplog.text


async def test_nobody_is_ended_while_one_goes_on() -> None:
    watch = StallWatchdog(limit_s=0.3)

    async def slow() -> bool:
        with watch.trajectory("slow") as progress:
            await asyncio.sleep(0.9)
            return progress.stalled

    async def busy() -> None:
        with watch.trajectory("busy") as progress:
            for _ in range(9):
                await asyncio.sleep(0.1)
                watch.enter(progress, Phase.EXECUTE)

    assert await asyncio.gather(slow(), busy()) == [False, None]


async def test_a_cancellation_from_elsewhere_is_no_stall() -> None:
    watch = StallWatchdog(limit_s=60)
    stalled: list[bool] = []

    async def work() -> None:
        with watch.trajectory("a") as progress:
            try:
                await asyncio.sleep(60)
            finally:
                stalled.append(progress.stalled)

    task = asyncio.create_task(work())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stalled == [False]


async def test_waiting_for_training_is_no_stall() -> None:
    watch = StallWatchdog(limit_s=0.2)

    async def wait() -> bool:
        with watch.trajectory("a") as progress:
            await asyncio.sleep(0.7)
            return progress.stalled

    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0.05)
    watch.pause()
    await asyncio.sleep(0.6)
    watch.resume()
    assert await waiting is False
