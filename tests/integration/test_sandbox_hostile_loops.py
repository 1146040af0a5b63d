"""Two hundred cells that never end by themselves: each is stopped in time, and nothing of it is left."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from codedance_verl.sandbox.config import SandboxConfig
from codedance_verl.sandbox.node import SandboxNode
from codedance_verl.sandbox.pool import SandboxPool, SandboxSession
from codedance_verl.types import Execution, ExecutionStatus
from tests.integration.hostile_cells import AT_THE_SUPERVISOR, HOSTILE

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow, pytest.mark.docker]

LIMIT_SECONDS = 1.0
STOPPED_WITHIN_SECONDS = 1.5
AT_ONCE = 4
GRACE_SECONDS = 0.45  # what is left of the bound: a supervisor that takes longer loses the variables, and the test
OVERRUN_SECONDS = 0.5  # of the host itself, which then kills the session whole, while six processes burn two cores
ANSWER_SECONDS = 30.0

# Prints the variable from before, then how many living processes the session has: the runner and its checkpoint.
AFTERWARDS = """
import os, time
def alive():
    mine, count = f'Uid:\\t{os.getuid()}\\t', 0
    for pid in filter(str.isdigit, os.listdir('/proc')):
        try:
            status = open(f'/proc/{pid}/status').read()
        except OSError:
            continue
        count += mine in status and 'State:\\tZ' not in status
    return count
end = time.monotonic() + 2
while alive() > 2 and time.monotonic() < end:
    time.sleep(0.01)
print(kept, alive())
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node(sandbox_image: str) -> AsyncIterator[SandboxNode]:
    """One container with the default bounds of a session."""
    config = SandboxConfig(backend="docker", containers=1, sessions_per_container=16, kill_grace_s=GRACE_SECONDS)
    node = SandboxNode(config)
    await node.start()
    yield node
    await node.shutdown()


async def run(session: SandboxSession, code: str, timeout_s: float = ANSWER_SECONDS) -> Execution:
    return await asyncio.wait_for(session.run(code, timeout_s=timeout_s), timeout_s + ANSWER_SECONDS)


async def fault_of(session: SandboxSession, number: int, code: str, durations: list[float]) -> str:
    """Runs a hostile cell between two decent ones; returns what was wrong, or an empty string."""
    await run(session, f"kept = {number}")
    hostile = await run(session, code, LIMIT_SECONDS)
    durations.append(hostile.duration_s)
    if hostile.status is not ExecutionStatus.TIMEOUT:
        return f"ended as {hostile.status}: {hostile.error}"
    if hostile.duration_s > STOPPED_WITHIN_SECONDS:
        return f"stopped after {hostile.duration_s:.2f} s"
    if hostile.error is None or "kept" not in hostile.error.traceback:
        return f"is not told what remains: {hostile.error}"
    after = await run(session, AFTERWARDS)
    if (after.status, after.stdout, after.images) != (ExecutionStatus.OK, f"{number} 2\n", ()):
        return f"the next call is not clean: {after}"
    return ""


async def test_two_hundred_hostile_cells_are_stopped_in_time_and_leave_nothing(node: SandboxNode) -> None:
    assert len(HOSTILE) == 200
    pending = list(enumerate(HOSTILE.items()))
    faults: dict[str, str] = {}
    durations: dict[str, list[float]] = {name: [] for name in HOSTILE}

    async def work() -> None:
        async with SandboxPool([node]).session() as session:
            while pending:
                number, (name, code) = pending.pop()
                if fault := await fault_of(session, number, code, durations[name]):
                    faults[name] = fault

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    times = {name: taken[0] for name, taken in durations.items()}
    slowest = max(times, key=lambda name: times[name])
    print(
        f"{len(times)} hostile cells at {LIMIT_SECONDS:g} s: median {statistics.median(times.values()):.3f} s, "
        f"slowest {times[slowest]:.3f} s ({slowest})"
    )
    assert not faults, "\n".join(f"{name}: {fault}" for name, fault in faults.items())


@pytest.mark.parametrize("name", AT_THE_SUPERVISOR)
async def test_a_cell_that_reaches_for_its_head_is_stopped_in_time_too(node: SandboxNode, name: str) -> None:
    pool = SandboxPool([node])
    async with pool.session() as session, pool.session() as neighbour:
        await run(session, "kept = 1")
        await run(neighbour, "x = 2")
        hostile = await run(session, AT_THE_SUPERVISOR[name], LIMIT_SECONDS)
        assert hostile.status in (ExecutionStatus.TIMEOUT, ExecutionStatus.KILLED, ExecutionStatus.ERROR), hostile
        assert hostile.duration_s < LIMIT_SECONDS + GRACE_SECONDS + OVERRUN_SECONDS
        after = await run(session, "globals().get('kept', 'gone')")
        assert hostile.error is not None
        lost = "gone" in hostile.error.message
        assert (after.status, after.stdout) == (ExecutionStatus.OK, "'gone'\n" if lost else "1\n")
        assert (await run(neighbour, "x")).stdout == "2\n"
