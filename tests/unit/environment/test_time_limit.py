from __future__ import annotations

import asyncio

import pytest

from codedance_verl.environment.time_limit import Pauses

pytestmark = pytest.mark.asyncio


async def test_time_runs_out_without_a_pause() -> None:
    pauses = Pauses()
    with pytest.raises(TimeoutError):
        async with pauses.limit(0.05) as limit:
            await asyncio.sleep(60)
    assert limit.expired()


async def test_a_pause_costs_no_time_however_long_it_is() -> None:
    pauses = Pauses()
    async with pauses.limit(0.3) as limit:
        pauses.begin()
        await asyncio.sleep(0.6)
        pauses.end()
        assert limit.when() is not None and not limit.expired()


async def test_what_was_left_before_a_pause_is_left_after_it() -> None:
    pauses, loop = Pauses(), asyncio.get_running_loop()
    async with pauses.limit(100.0) as limit:
        due = limit.when()
        for _ in range(2):
            pauses.begin()
            pauses.begin()  # nothing changes in a pause
            assert limit.when() is None
            began = loop.time()
            await asyncio.sleep(0.1)
            pauses.end()
            pauses.end()
            assert due is not None and limit.when() is not None
            assert limit.when() == pytest.approx(due + loop.time() - began, abs=0.09)
            due = limit.when()


async def test_time_runs_out_after_a_pause_also_for_what_began_in_it() -> None:
    pauses = Pauses()
    pauses.begin()
    asyncio.get_running_loop().call_later(0.2, pauses.end)
    expired: list[bool] = []

    async def work() -> None:
        async with pauses.limit(0.05) as limit:
            await asyncio.sleep(0.1)
            expired.append(limit.expired())
            await asyncio.sleep(60)

    with pytest.raises(TimeoutError):
        await work()
    assert expired == [False]


async def test_a_pause_does_not_touch_a_limit_that_has_run_out_or_ended() -> None:
    pauses = Pauses()

    async def work() -> None:
        async with pauses.limit(0.01):
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                pauses.begin()  # while it is being ended
                pauses.end()
                raise

    with pytest.raises(TimeoutError):
        await work()
    pauses.begin()
    pauses.end()


async def test_a_timeout_of_something_else_is_not_the_limits() -> None:
    with pytest.raises(TimeoutError):
        async with Pauses().limit(100.0) as limit:
            raise TimeoutError("a server")
    assert not limit.expired()
