"""The Ray side: one actor per Ray node owns that node's interpreters, and any process of the job can reach it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import hashlib
import json
import logging
from collections.abc import Awaitable, Sequence
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from codedance_verl.errors import UserError
from codedance_verl.sandbox.config import SandboxConfig
from codedance_verl.sandbox.errors import SandboxError, SandboxUnavailable
from codedance_verl.sandbox.node import SandboxNode
from codedance_verl.types import Execution

NAMESPACE = "codedance"
SHUTDOWN_SECONDS = 30.0
_PREPARE_SECONDS = 420.0  # installing and starting an engine, where there is none and we may
_CONCURRENT_CALLS = 10_000
_logger = logging.getLogger(__name__)


class SandboxNodeActor:
    """`SandboxNode` as an asynchronous Ray actor. It starts at the first call, and once only."""

    def __init__(self, config: SandboxConfig) -> None:
        logging.basicConfig(level=logging.INFO)
        self._config = config
        self._node: SandboxNode | None = None
        self._starting = asyncio.Lock()

    async def ready(self) -> None:
        """Return when sessions can be opened; raises what `SandboxNode.start` does. A failed start may be repeated."""
        await self._started()

    async def open(self, image: bytes | None = None, session_id: str | None = None) -> str:
        return await (await self._started()).open(image, session_id)

    async def run(self, session_id: str, code: str, timeout_s: float | None = None) -> Execution:
        return await (await self._started()).run(session_id, code, timeout_s)

    async def close(self, session_id: str) -> None:
        async with self._starting:  # an `open` that came before has registered its session then
            pass
        if self._node is not None:
            await self._node.close(session_id)

    async def stats(self) -> dict[str, Any]:
        return {"node_id": ray.get_runtime_context().get_node_id(), **(await self._started()).stats()}

    async def shutdown(self) -> None:
        async with self._starting:
            if self._node is not None:
                await self._node.shutdown()

    async def _started(self) -> SandboxNode:
        async with self._starting:
            if self._node is None:
                node = SandboxNode(self._config)
                await node.start()
                self._node = node
        return self._node


class RemoteNode:
    """A client's handle on a node actor. An actor that has died is replaced at the next `open`."""

    def __init__(self, config: SandboxConfig, node_id: str) -> None:
        self._config = config
        self._node_id = node_id
        self.actor = _get_or_start(config, node_id)

    async def open(self, image: bytes | None = None, session_id: str | None = None) -> str:
        try:
            return str(await _result(self.actor.open.remote(image, session_id)))
        except _NodeLost:
            self.actor = _get_or_start(self._config, self._node_id)
            return str(await _result(self.actor.open.remote(image, session_id)))

    async def run(self, session_id: str, code: str, timeout_s: float | None = None) -> Execution:
        execution: Execution = await _result(self.actor.run.remote(session_id, code, timeout_s))
        return execution

    async def close(self, session_id: str) -> None:
        with contextlib.suppress(_NodeLost):
            await _result(self.actor.close.remote(session_id))


class _NodeLost(SandboxUnavailable):
    """The actor has died, and all sessions of its node with it."""


def own_node(config: SandboxConfig) -> RemoteNode:
    """The node actor of the machine this process runs on."""
    if not ray.is_initialized():
        raise UserError("the sandbox pool needs Ray: call ray.init() first, or use SandboxPool.local")
    return _remote_node(config, ray.get_runtime_context().get_node_id(), ray.get_runtime_context().get_job_id())


@functools.lru_cache(maxsize=64)
def _remote_node(config: SandboxConfig, node_id: str, _job_id: str) -> RemoteNode:
    return RemoteNode(config, node_id)


def start_everywhere(config: SandboxConfig) -> list[RemoteNode]:
    """Start, or find, the actors of all living nodes and wait until they can serve."""
    if not ray.is_initialized():
        raise UserError("the sandbox pool needs Ray: call ray.init() first")
    nodes = [RemoteNode(config, node["NodeID"]) for node in ray.nodes() if node["Alive"]]
    _wait([node.actor.ready.remote() for node in nodes], config.start_timeout_s + _PREPARE_SECONDS)
    return nodes


def stats(nodes: Sequence[RemoteNode]) -> list[dict[str, Any]]:
    return list(_wait([node.actor.stats.remote() for node in nodes], SHUTDOWN_SECONDS))


def shut_down(nodes: Sequence[RemoteNode]) -> None:
    """Shut the nodes down and end their actors."""
    try:
        _wait([node.actor.shutdown.remote() for node in nodes], SHUTDOWN_SECONDS)
    except (SandboxError, RayError) as error:
        _logger.warning("sandbox: shutting down: %s", error)
    for node in nodes:
        with contextlib.suppress(RayError, ValueError):
            ray.kill(node.actor)
    _remote_node.cache_clear()


def _get_or_start(config: SandboxConfig, node_id: str) -> Any:
    """The named actor of a node and configuration; whoever asks first starts it and owns it."""
    settings = json.dumps(dataclasses.asdict(config), sort_keys=True)
    name = f"sandbox-{node_id[:12]}-{hashlib.sha256(settings.encode()).hexdigest()[:8]}"
    actor_class = ray.remote(SandboxNodeActor)
    return actor_class.options(
        name=name,
        namespace=NAMESPACE,
        get_if_exists=True,
        num_cpus=0,
        max_concurrency=_CONCURRENT_CALLS,
        scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False),
    ).remote(config)


def _wait(references: list[Any], timeout_s: float) -> Any:
    try:
        return ray.get(references, timeout=timeout_s)
    except GetTimeoutError:
        raise SandboxUnavailable(f"a sandbox node did not answer within {timeout_s:g} s") from None
    except RayTaskError as error:
        raise _cause(error) from None
    except RayActorError as error:
        raise _NodeLost(f"a sandbox node has died: {error}") from None


async def _result(reference: Awaitable[Any]) -> Any:
    """Await a call; exceptions of the node arrive as what they are there, without Ray's wrapping."""
    try:
        return await reference
    except RayTaskError as error:
        raise _cause(error) from None
    except RayActorError as error:
        raise _NodeLost(f"the sandbox node has died: {error}") from None


def _cause(error: RayTaskError) -> Exception:
    cause = error.cause
    if isinstance(cause, (SandboxError, UserError)):
        return cause
    return SandboxUnavailable(f"a sandbox node failed: {type(cause).__name__}: {cause}")
