"""Calls a second of a host's node actors, and the CPU time of a call in actor, client and Ray's own process."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import ray
from PIL import Image

from benchmarks.sandbox_host.stub import CROP, StubLauncher
from codedance_verl.sandbox.client_nodes import RemoteNode
from codedance_verl.sandbox.config import SandboxConfig
from codedance_verl.sandbox.docker.launcher import Launcher
from codedance_verl.sandbox.node import SandboxNode
from codedance_verl.sandbox.pool import SandboxPool
from codedance_verl.sandbox.ray_node import RayFinder, SandboxNodeActor
from sandbox_image.codedance_interpreter import png

WORKLOADS = ("trivial", "crop", "session")
CONFIG = SandboxConfig(backend="process", containers=1, standby_containers=0, concurrent_cells=64, cores_per_actor=4096)
_CELLS = {"trivial": "1 + 1", "crop": CROP, "session": "1 + 1"}
_WARM_UP_SECONDS = 1.0


@dataclass(frozen=True)
class Load:
    """Closed loop of `clients` processes with `sessions` sessions each, for `seconds`."""

    clients: int = 2
    sessions: int = 32
    seconds: float = 5.0


class StubNodeActor(SandboxNodeActor):
    """Node actor whose interpreters run no cells, and which knows its own CPU time."""

    async def _start(self) -> SandboxNode:
        self._stubs = StubLauncher()
        return await super()._start()

    def _launcher(self) -> Launcher | None:
        return self._stubs

    async def cpu_s(self) -> tuple[float, float]:
        """Returns seconds of CPU so far: of this process, and of its interpreters."""
        return time.process_time(), sum(map(process_cpu_s, self._stubs.pids))


class StubFinder(RayFinder):
    """Finder of such actors."""

    actor_class = StubNodeActor


class Client:
    """A process with sessions, as a rollout worker is one."""

    def __init__(self, node_id: str, actors: int, local: bool) -> None:
        self._pool = SandboxPool([RemoteNode(CONFIG, node_id, StubFinder(), actors, local)])
        self._image = png.encode(Image.effect_noise((112, 112), 90).convert("RGB"))

    async def measure(self, workload: str, load: Load) -> tuple[int, float, float]:
        """Returns calls, seconds and CPU seconds of this process."""
        async with contextlib.AsyncExitStack() as stack:
            if workload == "session":
                return await _timed([functools.partial(_one_session, self._pool, self._image)] * load.sessions, load)
            sessions = [await stack.enter_async_context(self._pool.session()) for _ in range(load.sessions)]
            return await _timed([functools.partial(session.run, _CELLS[workload]) for session in sessions], load)


async def _timed(works: Sequence[Callable[[], Awaitable[object]]], load: Load) -> tuple[int, float, float]:
    """Repeats each work for the time of the load, all at once, after a warm-up."""
    done = 0

    async def repeat(work: Callable[[], Awaitable[object]], until: float) -> None:
        nonlocal done
        while time.perf_counter() < until:
            await work()
            done += 1

    until = time.perf_counter() + _WARM_UP_SECONDS
    await asyncio.gather(*(repeat(work, until) for work in works))
    done, began, cpu = 0, time.perf_counter(), time.process_time()
    await asyncio.gather(*(repeat(work, began + load.seconds) for work in works))
    return done, time.perf_counter() - began, time.process_time() - cpu


async def _one_session(pool: SandboxPool, image: bytes) -> None:
    async with pool.session(image) as session:
        await session.run(_CELLS["session"])


def process_cpu_s(pid: int) -> float:
    """Returns the CPU seconds of a process's threads; 0 where it has gone."""
    total = 0
    for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with contextlib.suppress(OSError):
            total += int(path.read_text().split()[0])
    return total / 1e9


def raylets() -> list[int]:
    """Returns the pids of Ray's own node processes that this process has started."""
    children = psutil.Process().children()
    return [child.pid for child in children if child.name() == "raylet"]


def measured(actors: int, local: bool, workloads: Sequence[str], load: Load) -> dict[str, Any]:
    """Returns the figures of each workload with so many node actors; Ray must be initialised."""
    node_id = ray.get_runtime_context().get_node_id()
    node = RemoteNode(CONFIG, node_id, StubFinder(), actors, local)
    ray.get([actor.ready.remote() for actor in node.actors])
    clients = [ray.remote(num_cpus=0)(Client).remote(node_id, actors, local) for _ in range(load.clients)]
    try:
        return {workload: _figures(node, clients, workload, load) for workload in workloads}
    finally:
        ray.get([actor.shutdown.remote() for actor in node.actors])
        for actor in (*node.actors, *clients):
            ray.kill(actor)


def _figures(node: RemoteNode, clients: Sequence[Any], workload: str, load: Load) -> dict[str, Any]:
    ray.get([client.measure.remote(workload, Load(sessions=load.sessions, seconds=0.1)) for client in clients])
    before = _cpu(node)
    started = time.perf_counter()
    found = ray.get([client.measure.remote(workload, load) for client in clients])
    seconds, after = time.perf_counter() - started, _cpu(node)
    calls, client_s = sum(each[0] for each in found), sum(each[2] for each in found)
    # Actors and raylets worked through the warm-up too; calls there went at the same rate.
    share = calls / (calls * seconds / max(each[1] for each in found))
    actor_ms, stub_ms, raylet_ms = (1e3 * share * (b - a) / calls for a, b in zip(before, after, strict=True))
    client_ms = 1e3 * client_s / calls
    return {
        "calls_per_s": round(calls / max(each[1] for each in found), 1),
        "actor_ms": round(actor_ms, 4),
        "client_ms": round(client_ms, 4),
        "raylet_ms": round(raylet_ms, 4),
        "stub_ms": round(stub_ms, 4),
        "one_actor_saturates_at": round(1e3 / actor_ms),
    }


def _cpu(node: RemoteNode) -> tuple[float, float, float]:
    seconds = ray.get([actor.cpu_s.remote() for actor in node.actors])
    return sum(each[0] for each in seconds), sum(each[1] for each in seconds), sum(map(process_cpu_s, raylets()))
