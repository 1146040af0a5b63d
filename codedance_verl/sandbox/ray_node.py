"""Ray actors of the sandbox: they own the interpreters of their Ray node, and any process of the job can reach them.

A node has one, or several on a large host (`host_share.py`), the first of which starts the containers of all
(`engine_owner.py`). They serve clients of their own machine over a socket besides (`client_socket.py`). `placement.py`
chooses the nodes, `directory.py` lists them for clients, `client_nodes.py` has the clients' handles.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import json
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from codedance_verl.errors import UserError
from codedance_verl.metrics import emit
from codedance_verl.sandbox import wire
from codedance_verl.sandbox.actor_calls import answered, wait
from codedance_verl.sandbox.client_nodes import ClientNodes, RemoteNode, standby_config
from codedance_verl.sandbox.client_socket import ClientSocket
from codedance_verl.sandbox.config import SandboxConfig
from codedance_verl.sandbox.directory import Directory, RayStore
from codedance_verl.sandbox.docker import reaper
from codedance_verl.sandbox.docker.launcher import Launcher
from codedance_verl.sandbox.engine_owner import EngineOwner, borrowed_launcher
from codedance_verl.sandbox.errors import SandboxError
from codedance_verl.sandbox.host_share import actors_on, share_of
from codedance_verl.sandbox.node import SandboxNode
from codedance_verl.sandbox.node_metrics import NodeMetrics
from codedance_verl.sandbox.placement import NAMESPACE, RayNode, living_nodes, sandbox_nodes
from codedance_verl.sandbox.telemetry import NodeTelemetry, record_call
from codedance_verl.types import Execution

SHUTDOWN_SECONDS = 30.0
_COUNT_SECONDS = 120.0  # start of an actor's process, which is all that its answer needs
_PREPARE_SECONDS = 420.0  # installing and starting an engine, where there is none and we may
_CONCURRENT_CALLS = 10_000
_logger = logging.getLogger(__name__)


class SandboxNodeActor:
    """`SandboxNode` as an asynchronous Ray actor, `index` among those of its host. It starts at the first call, once.

    Images that come back are not decoded here.
    """

    def __init__(self, config: SandboxConfig, standby: bool = False, index: int = 0) -> None:
        logging.basicConfig(level=logging.INFO)
        self._config = config
        self._is_standby = standby
        self._index = index
        self._share = config if standby else share_of(config, actors_on(config))
        self._engine = EngineOwner(self._share)
        self._node: SandboxNode | None = None
        self._socket = ClientSocket(self)
        self._path = ""
        self._starting = asyncio.Lock()
        self._telemetry: asyncio.Task[None] | None = None

    async def ready(self) -> None:
        """Returns when sessions can be opened; raises what `SandboxNode.start` does. A failed start may be repeated."""
        await self._started()

    async def client_socket(self) -> str:
        """Returns the path of the socket for clients of this machine, once sessions can be opened."""
        await self._started()
        return self._path

    async def actors_here(self) -> int:
        """Returns the number of node actors that this machine should have."""
        return actors_on(self._config)

    async def engine(self, owner: str, method: str, *arguments: str) -> Any:
        """Calls the launcher of another actor of this machine (`EngineOwner.call`)."""
        return await self._engine.call(owner, method, *arguments)

    async def open(self, images: Sequence[bytes] = (), session_id: str | None = None) -> str:
        return await (await self._started()).open(images, session_id)

    async def run(self, session_id: str, code: str, timeout_s: float | None = None) -> Execution:
        execution = await (await self._started()).run(session_id, code, timeout_s)
        record_call(execution)
        return execution

    async def close(self, session_id: str) -> None:
        async with self._starting:  # an `open` that came before has registered its session then
            pass
        if self._node is not None:
            await self._node.close(session_id)

    async def stats(self) -> dict[str, Any]:
        return {"node_id": ray.get_runtime_context().get_node_id(), **(await self._started()).stats()}

    async def take_metrics(self) -> dict[str, emit.Sample]:
        """Returns the metrics since the last call, for verl's trackers."""
        return emit.drain()

    async def shutdown(self, drain_s: float = 0.0) -> None:
        if self._telemetry is not None:
            self._telemetry.cancel()
        async with self._starting:  # one that is starting has started then
            node = self._node
        if node is not None:
            await node.drain(drain_s)
            await self._socket.stop()
            await node.shutdown()

    async def _started(self) -> SandboxNode:
        async with self._starting:
            if self._node is None:
                self._node = await self._start()
                self._telemetry = asyncio.create_task(self._telemetry_of(self._node).forever())
        return self._node

    async def _start(self) -> SandboxNode:
        node = SandboxNode(self._share, await asyncio.to_thread(self._launcher), decode_images=False)
        await node.start()
        try:
            self._path = self._path or str(await self._socket.start())
        except BaseException:
            await node.shutdown()  # else the next attempt would start interpreters beside these
            raise
        return node

    def _launcher(self) -> Launcher | None:
        """Returns what starts interpreters; None for what the configuration says, in this process."""
        if self._index == 0:
            return None
        node_id = ray.get_runtime_context().get_node_id()
        return borrowed_launcher(self._config, functools.partial(_first_actor, self._config, node_id))

    def _telemetry_of(self, node: SandboxNode) -> NodeTelemetry:
        return NodeTelemetry(node, self._is_standby)


class RayFinder:
    """Finds and starts node actors of this job in Ray."""

    actor_class: type = SandboxNodeActor

    def get(self, config: SandboxConfig, node_id: str, index: int = 0) -> Any | None:
        """Returns the actor that has the name now; None where none has."""
        return find_actor(_actor_name(config, node_id, index))

    def get_or_start(self, config: SandboxConfig, node_id: str, standby: bool, index: int = 0) -> Any:
        """Returns the named actor of a node and a configuration; the first process to ask starts and owns it."""
        return (
            ray.remote(self.actor_class)
            .options(
                name=_actor_name(config, node_id, index),
                namespace=NAMESPACE,
                get_if_exists=True,
                # It waits for interpreters, whose load Ray does not schedule.
                num_cpus=0,
                # Calls wait in the node's queue, which is bounded and says why it refuses; Ray's would be silent.
                max_concurrency=_CONCURRENT_CALLS,
                scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False),
            )
            .remote(config, standby, index)
        )

    def is_alive(self, node_id: str) -> bool:
        """Returns true while the cluster counts the node as alive; it takes seconds to notice that one has gone."""
        return any(node.node_id == node_id for node in living_nodes())


def client_nodes(config: SandboxConfig) -> ClientNodes:
    """Returns the nodes that serve this process; the same object for the same configuration."""
    if not ray.is_initialized():
        raise UserError("the sandbox pool needs Ray: call ray.init() first, or use SandboxPool.local")
    context = ray.get_runtime_context()
    return _client_nodes(config, context.get_job_id(), context.get_node_id())


@functools.lru_cache(maxsize=16)
def _client_nodes(config: SandboxConfig, _job_id: str, own: str) -> ClientNodes:
    """Looks the directory up once: `start_everywhere` comes before the clients."""
    wire.allow_many_connections()
    return ClientNodes(config, own, _directory(config), RayFinder(), lambda: _own_or_all(config, own))


def _own_or_all(config: SandboxConfig, own: str) -> list[str]:
    """Returns the nodes to use where nobody has started any: this process's own, or all that may run interpreters."""
    may = [node.node_id for node in sandbox_nodes(config)]
    return [own] if own in may else may


def _directory(config: SandboxConfig) -> Directory:
    return Directory(_actor_name(config, "nodes"), RayStore())


def node_metrics(config: SandboxConfig) -> NodeMetrics:
    """Returns a collector of the metrics of all node actors of this job; one process of a run needs one."""

    def names() -> list[str]:
        return [
            name for node_id, actors in _directory(config).all().items() for name in _names(config, node_id, actors)
        ]

    return NodeMetrics(names, find_actor)


def _names(config: SandboxConfig, node_id: str, actors: int) -> list[str]:
    """Returns the names of the actors of a node, of the standby too where there is one."""
    names = [_actor_name(config, node_id, index) for index in range(actors)]
    standby = standby_config(config) if actors == 1 else None
    return names + ([_actor_name(standby, node_id)] if standby else [])


def start_everywhere(config: SandboxConfig) -> list[RemoteNode]:
    """Starts, or finds, the actors of the nodes that may run interpreters, and waits until they can serve.

    Where `sandbox.node_resource` names no nodes, those that lack what it takes are left out, with a warning.

    Raises:
        UserError: a node that was named lacks what `config.backend` needs, or all do.
        SandboxUnavailable: likewise, with interpreters that do not come up.
    """
    if not ray.is_initialized():
        raise UserError("the sandbox pool needs Ray: call ray.init() first")
    finder, own = RayFinder(), ray.get_runtime_context().get_node_id()
    nodes = sandbox_nodes(config)
    actors = _actors_by_node(config, nodes, finder, own)
    started = [
        (node, RemoteNode(config, node.node_id, finder, actors[node.node_id], local=node.node_id == own))
        for node in nodes
    ]
    starts = [[actor.ready.remote() for actor in remote.actors] for _, remote in started]
    deadline = time.monotonic() + config.start_timeout_s + _PREPARE_SECONDS
    up, failures = [], []
    for (node, remote), ready in zip(started, starts, strict=True):
        try:
            # One deadline for all nodes, which start side by side.
            wait(ready, max(deadline - time.monotonic(), 0.0))
            up.append(remote)
        except (SandboxError, UserError) as error:
            failures.append(type(error)(f"node {node.address}: {error}") if len(started) > 1 else error)
            _kill(remote.actors)
    if failures and (config.node_resource or not up):
        shut_down(up)
        raise failures[0]
    for failure in failures:
        _logger.warning("sandbox: no interpreters there: %s", failure)
    _directory(config).publish({remote.node_id: actors[remote.node_id] for remote in up})
    return up


def _actors_by_node(config: SandboxConfig, nodes: Sequence[RayNode], finder: RayFinder, own: str) -> Mapping[str, int]:
    """Returns the number of node actors of each node by its cores, which Ray need not know (`ray start --num-cpus`)."""
    found = {node.node_id: actors_on(config) for node in nodes if node.node_id == own}
    asked = {
        node.node_id: finder.get_or_start(config, node.node_id, False).actors_here.remote()
        for node in nodes
        if node.node_id != own
    }
    answers = answered(asked, _COUNT_SECONDS)
    for node_id in asked.keys() - answers.keys():
        _logger.warning("sandbox: node %s has not said how many node actors it has; one is used", node_id[:12])
    return (
        {node.node_id: 1 for node in nodes}
        | found
        | {node_id: number for node_id, number in answers.items() if isinstance(number, int)}
    )


def stats(nodes: Sequence[RemoteNode]) -> list[dict[str, Any]]:
    """Returns `SandboxNode.stats` of the node actors, node by node; standbys are left out."""
    return list(wait([actor.stats.remote() for node in nodes for actor in node.main_actors], SHUTDOWN_SECONDS))


def shut_down(nodes: Sequence[RemoteNode], drain_s: float = 0.0) -> None:
    """Waits up to `drain_s` for open sessions to end, then shuts the nodes down and ends their actors.

    What actors that were killed left on this machine is removed too; on others their next start does that.
    """
    actors = [actor for node in nodes if not node.gone for actor in node.actors]
    ends = [actor.shutdown.remote(drain_s) for actor in actors]
    if ends:
        ray.wait(ends, num_returns=len(ends), timeout=drain_s + SHUTDOWN_SECONDS)  # one that died keeps none waiting
    for end in ends:
        try:
            wait(end, 0.0)
        except (SandboxError, RayError) as error:
            _logger.warning("sandbox: shutting down: %s", error)
    _kill(actors)
    for config in {node.config for node in nodes}:
        _directory(config).remove()
    # A pool that is started again publishes another directory.
    _client_nodes.cache_clear()
    reaper.remove_dead_directories()


def find_actor(name: str) -> Any | None:
    """Returns the node actor of a name; None where none has it."""
    try:
        return ray.get_actor(name, namespace=NAMESPACE)
    except ValueError:
        return None


def _kill(actors: Sequence[Any]) -> None:
    for actor in actors:
        with contextlib.suppress(RayError, ValueError):
            ray.kill(actor)


def _first_actor(config: SandboxConfig, node_id: str, *arguments: str) -> Any:
    """Calls `SandboxNodeActor.engine` of the first actor of a node, started where it has died; blocks."""
    return wait(RayFinder().get_or_start(config, node_id, False).engine.remote(*arguments), _PREPARE_SECONDS)


def _actor_name(config: SandboxConfig, node_id: str, index: int = 0) -> str:
    """Returns the name under which all processes of a job find an actor of a node and configuration."""
    # Of the settings too: processes with others get actors of their own.
    settings = hashlib.sha256(json.dumps(config.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()[:8]
    return f"sandbox-{ray.get_runtime_context().get_job_id()}-{settings}-{node_id}{f'-{index}' if index else ''}"
