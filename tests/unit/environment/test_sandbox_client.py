from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

import pytest
from ray.exceptions import RaySystemError

from codedance_verl.environment import sandbox_client as sandboxing
from codedance_verl.environment.sandbox_client import SandboxClient
from codedance_verl.sandbox.client_nodes import result
from codedance_verl.sandbox.errors import SandboxBusy, SandboxError, SandboxInputError, SandboxUnavailable
from codedance_verl.types import Execution, ExecutionStatus
from tests.unit.environment.pools import CountingPool

pytestmark = pytest.mark.asyncio

DONE = Execution(ExecutionStatus.OK, stdout="1\n")


class FaultyPool(CountingPool):
    """Refuses to open and to run so many times, then serves."""

    def __init__(self, opens: list[Exception] | None = None, runs: list[Exception] | None = None) -> None:
        super().__init__()
        self.opens, self.runs = opens or [], runs or []
        self.pictures: list[bytes] = []

    def admit(self, *images: bytes) -> None:
        if self.opens:
            raise self.opens.pop()
        self.pictures.extend(images)

    async def run(self, code: str) -> Execution:
        if self.runs:
            raise self.runs.pop()
        return DONE


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandboxing, "FIRST_PAUSE_SECONDS", 0.0)


async def run(pool: Any, most_retries: int, cells: int = 1) -> SandboxClient:
    sandboxed = SandboxClient(lambda: pool, lambda: [b"png"], most_retries)
    async with AsyncExitStack() as resources:
        for _ in range(cells):
            execution, waited_s = await sandboxed.run("1", resources)
            assert execution is DONE and waited_s >= 0
        assert pool.open_sessions == 1
    assert pool.open_sessions == 0
    return sandboxed


async def test_refusals_are_overcome_and_counted() -> None:
    pool = FaultyPool(opens=[SandboxBusy("full")] * 2, runs=[SandboxBusy("full")])
    assert (await run(pool, most_retries=3)).retries == 3


async def test_a_session_is_opened_once_with_the_picture() -> None:
    pool = FaultyPool()
    await run(pool, most_retries=0, cells=3)
    assert pool.pictures == [b"png"]


async def test_too_many_refusals_are_an_error() -> None:
    with pytest.raises(SandboxBusy):
        await run(FaultyPool(opens=[SandboxBusy("full")] * 3), most_retries=2)


async def test_a_picture_nobody_can_read_is_not_tried_again() -> None:
    pool = FaultyPool(opens=[SandboxInputError("no picture")] * 2)
    with pytest.raises(SandboxInputError):
        await run(pool, most_retries=5)
    assert len(pool.opens) == 1


async def test_any_error_of_ray_is_one_of_the_sandbox_and_not_asked_for_again() -> None:
    async def fail() -> None:
        raise RaySystemError("the store is gone")

    with pytest.raises(SandboxError, match="RaySystemError") as caught:
        await result(fail())
    assert not isinstance(caught.value, SandboxBusy | SandboxUnavailable)
