"""Stub interpreters and the simulation of the benchmark of the sandbox's host side."""

from __future__ import annotations

import pytest

from benchmarks.sandbox_host.saturation import CONFIG
from benchmarks.sandbox_host.simulation import CELL_MS, simulated
from benchmarks.sandbox_host.stub import CROP, StubLauncher
from codedance_verl.sandbox.node import SandboxNode
from codedance_verl.sandbox.pool import SandboxPool


@pytest.mark.asyncio
async def test_stubs_answer_as_interpreters_do() -> None:
    node = SandboxNode(CONFIG, StubLauncher())
    await node.start()
    try:
        async with SandboxPool([node]).session(b"any") as session:
            trivial, crop = await session.run("1 + 1"), await session.run(CROP)
    finally:
        await node.shutdown()
    assert (trivial.stdout, trivial.images) == ("2\n", ())
    assert [(image.width, image.height) for image in crop.images] == [(256, 256)]


@pytest.mark.parametrize("cell", CELL_MS.values())
@pytest.mark.parametrize("cores", [2, 16, 64])
def test_a_simulated_host_stays_within_its_bounds_and_grows_with_its_actors(cores: int, cell: float) -> None:
    rates = [simulated(cores, actors, 1.0, 0.5, cell) for actors in (1, 2, 4)]
    for found in rates:
        assert 0.9 * min(found.actor_bound, found.core_bound) < found.calls_per_s
        assert found.calls_per_s <= min(found.actor_bound, found.core_bound) * 1.001
    one, two, four = (found.calls_per_s for found in rates)
    assert one <= two * 1.001 <= four * 1.002
    if rates[2].actor_bound < rates[2].core_bound:  # actors are the bound: twice as many serve twice as much
        assert four > 1.9 * two > 3.6 * one
