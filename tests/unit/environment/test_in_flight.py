from __future__ import annotations

import asyncio
from typing import Any
from unittest import mock

from codedance_verl.rollout.agent_loop import CodeDanceAgentLoop
from tests.unit.environment.harness import Say, Script, loop_of


def most_at_once(limit: int, rollouts: int) -> tuple[int, int]:
    """How many of so many rollouts were under way at once, and how many came to their end; every third one fails."""
    running = most = done = 0

    async def rollout(_self: Any, _params: Any, record: dict[str, Any]) -> None:
        nonlocal running, most, done
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        running -= 1
        done += 1
        if record["index"] % 3 == 0:
            raise RuntimeError("a record that cannot be rendered")

    async def all_at_once() -> None:
        loops = [loop_of(Script([Say("")], environment={"max_in_flight": limit}), None) for _ in range(rollouts)]
        await asyncio.gather(*(loop.run({}, index=index) for index, loop in enumerate(loops)), return_exceptions=True)

    with mock.patch.object(CodeDanceAgentLoop, "_run", rollout):
        asyncio.run(all_at_once())
    return most, done


def test_no_more_than_the_limit_are_under_way_and_all_get_their_turn() -> None:
    assert most_at_once(3, rollouts=20) == (3, 20)


def test_a_limit_that_is_not_reached_holds_nobody_up() -> None:
    assert most_at_once(50, rollouts=20) == (20, 20)
