"""Contender: anything that opens sessions and runs cells in them, the pool of this project for one."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from benchmarks.sandbox_bench import footprint
from codedance_verl.sandbox.config import SandboxConfig
from codedance_verl.sandbox.errors import SandboxUnavailable
from codedance_verl.sandbox.node import SandboxNode
from codedance_verl.sandbox.pool import SandboxPool, get_or_start_pool
from codedance_verl.types import Execution

UNLIMITED = 1 << 20
_SESSIONS_PER_CONTAINER = 256
_PIDS_PER_SESSION = 4


class Session(Protocol):
    """One caller's interpreter."""

    async def run(self, code: str) -> Execution: ...


class Serving(Protocol):
    """A contender that is up."""

    def session(self, image: bytes) -> AbstractAsyncContextManager[Session]:
        """Opens a session with `input_image`; it is closed when the block is left."""

    def processes(self) -> list[int]:
        """Pids of all processes that serve at this moment. May block."""


@dataclass(frozen=True)
class Traits:
    """Facts about a contender: `isolated` from the host and from one another, `stateful` where variables outlive a
    cell, `most_sessions` it is tried with, and what else one should know."""

    isolated: bool
    stateful: bool = True
    most_sessions: int = UNLIMITED
    note: str = ""


class Contender(Protocol):
    """A way to run cells."""

    @property
    def name(self) -> str: ...

    @property
    def traits(self) -> Traits: ...

    def serving(self, sessions: int) -> AbstractAsyncContextManager[Serving]:
        """Brings up what serves `sessions` at once; it ends with the block."""


class PoolContender:
    """The interpreter pool of this project. `through_ray`: called across Ray's actor, as training does."""

    def __init__(self, config: SandboxConfig, through_ray: bool = False) -> None:
        self._config = config
        self._through_ray = through_ray
        self.name = f"ours ({config.backend}{', Ray' if through_ray else ''})"
        contained = config.backend == "docker"
        self.traits = Traits(
            isolated=contained,
            note=f"a forked session each, failed cells undone, {'in' if contained else 'no'} containers",
        )

    @contextlib.asynccontextmanager
    async def serving(self, sessions: int) -> AsyncIterator[ServingPool]:
        config = with_room(self._config, sessions)
        async with _ray_pool(config) if self._through_ray else _local_pool(config) as serving:
            yield serving


@dataclass(frozen=True)
class ServingPool:
    """This project's pool that is up; `interpreters` are the names of its containers or processes."""

    pool: SandboxPool
    interpreters: tuple[str, ...]

    def session(self, image: bytes) -> AbstractAsyncContextManager[Session]:
        return self.pool.session(image)

    def processes(self) -> list[int]:
        return footprint.processes_naming(self.interpreters)


def with_room(config: SandboxConfig, sessions: int) -> SandboxConfig:
    """The configuration itself where it has places for `sessions`, else one with more and fuller containers."""
    if config.containers * config.sessions_per_container >= sessions:
        return config
    containers = max(config.containers, -(-sessions // _SESSIONS_PER_CONTAINER))
    places = -(-sessions // containers)
    pids = max(config.pids, _PIDS_PER_SESSION * places)
    return config.replace(containers=containers, sessions_per_container=places, pids=pids)


@contextlib.asynccontextmanager
async def _local_pool(config: SandboxConfig) -> AsyncIterator[ServingPool]:
    node = SandboxNode(config)
    await node.start()
    try:
        yield ServingPool(SandboxPool([node]), await _all_ready(lambda: node.stats()["interpreters"], config))
    finally:
        await asyncio.shield(node.shutdown())


@contextlib.asynccontextmanager
async def _ray_pool(config: SandboxConfig) -> AsyncIterator[ServingPool]:
    import ray

    if not ray.is_initialized():
        ray.init(address="local", include_dashboard=False, logging_level="ERROR")
    pool = await asyncio.to_thread(get_or_start_pool, config)
    try:
        yield ServingPool(pool, await _all_ready(lambda: pool.stats()[0]["interpreters"], config))
    finally:
        await asyncio.to_thread(pool.shutdown)


async def _all_ready(ready: Callable[[], dict[str, int]], config: SandboxConfig) -> tuple[str, ...]:
    """Names of the interpreters once all can serve; the pool itself serves as soon as the first can."""
    deadline = time.monotonic() + config.start_timeout_s
    while len(names := ready()) < config.containers:
        if time.monotonic() > deadline:
            raise SandboxUnavailable(f"{len(names)} of {config.containers} interpreters came up in time")
        await asyncio.sleep(0.1)
    return tuple(names)
