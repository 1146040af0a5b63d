"""The Ray side: one actor per Ray node owns that node's interpreters, and any process of the job can reach it.

`placement.py` says which nodes these are.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import hashlib
import json
import logging
import secrets
import time
from collections.abc import Awaitable, Sequence
from typing import Any

import ray
from ray.exceptions import ActorUnschedulableError, GetTimeoutError, RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from codedance_verl.errors import UserError
from codedance_verl.metrics import emit
from codedance_verl.sandbox import reaper
from codedance_verl.sandbox.config import SandboxConfig
from codedance_verl.sandbox.errors import NodeLost, SandboxError, SandboxUnavailable, UnknownSession
from codedance_verl.sandbox.node import SandboxNode
from codedance_verl.sandbox.placement import (
    NAMESPACE,
    RayNode,
    actor_name,
    in_order_of_preference,
    is_alive,
    sandbox_nodes,
    serving_nodes,
)
from codedance_verl.sandbox.telemetry import NodeTelemetry, tell_call
from codedance_verl.types import Execution

SHUTDOWN_SECONDS = 30.0
_PREPARE_SECONDS = 420.0  # installing and starting an engine, where there is none and we may
_CONCURRENT_CALLS = 10_000
_logger = logging.getLogger(__name__)


class SandboxNodeActor:
    """`SandboxNode` as an asynchronous Ray actor. It starts at the first call, and once only."""

    def __init__(self, config: SandboxConfig, standby: bool = False) -> None:
        logging.basicConfig(level=logging.INFO)
        self._config = config
        self._is_standby = standby
        self._node: SandboxNode | None = None
        self._starting = asyncio.Lock()
        self._telling: asyncio.Task[None] | None = None

    async def ready(self) -> None:
        """Return when sessions can be opened; raises what `SandboxNode.start` does. A failed start may be repeated."""
        await self._started()

    async def open(self, images: Sequence[bytes] = (), session_id: str | None = None) -> str:
        return await (await self._started()).open(images, session_id)

    async def run(self, session_id: str, code: str, timeout_s: float | None = None) -> Execution:
        execution = await (await self._started()).run(session_id, code, timeout_s)
        tell_call(execution)
        return execution

    async def close(self, session_id: str) -> None:
        async with self._starting:  # an `open` that came before has registered its session then
            pass
        if self._node is not None:
            await self._node.close(session_id)

    async def stats(self) -> dict[str, Any]:
        return {"node_id": ray.get_runtime_context().get_node_id(), **(await self._started()).stats()}

    async def take_metrics(self) -> dict[str, emit.Sample]:
        """What was told since the last call, for verl's trackers."""
        return emit.take()

    async def shutdown(self, drain_s: float = 0.0) -> None:
        if self._telling is not None:
            self._telling.cancel()
        async with self._starting:
            if self._node is not None:
                await self._node.drain(drain_s)
                await self._node.shutdown()

    async def _started(self) -> SandboxNode:
        async with self._starting:
            if self._node is None:
                node = SandboxNode(self._config)
                await node.start()
                self._node = node
                self._telling = asyncio.create_task(NodeTelemetry(node, self._is_standby).forever())
        return self._node


class _ActorHandle:
    """A node actor by name. `restart` replaces one that has died; until its successor is ready, `is_up` is false.

    `gone`: its Ray node has left the cluster, so nothing can replace it.
    """

    def __init__(self, config: SandboxConfig, node_id: str, standby: bool = False) -> None:
        self._config = config
        self._node_id = node_id
        self._is_standby = standby
        self._restart: asyncio.Future[None] | None = None
        self.gone = False
        self.actor = _get_or_start(config, node_id, standby)

    def latest(self) -> Any:
        """The actor that has the name now: another process may have started a successor."""
        try:
            return ray.get_actor(_actor_name(self._config, self._node_id), namespace=NAMESPACE)
        except ValueError:
            return self.actor

    @property
    def is_up(self) -> bool:
        return self._restart is None or self._restart.done()

    def restart(self) -> None:
        if not self.gone and not is_alive(self._node_id):
            self.gone = True
            _logger.warning("sandbox: node %s has left the cluster", self._node_id[:12])
        if self.is_up and not self.gone:
            self.actor = _get_or_start(self._config, self._node_id, self._is_standby)
            self._restart = asyncio.ensure_future(self._until_ready())

    async def _until_ready(self) -> None:
        try:
            await _result(self.actor.ready.remote())
        except (SandboxError, UserError) as error:
            _logger.warning("sandbox: a node does not come up again: %s", error)


class RemoteNode:
    """A client's view of one machine: its node actor, and a standby beside it with `config.spares` interpreters.

    When the node actor dies its sessions die with it; new ones go to the standby until a successor is ready.
    """

    def __init__(self, config: SandboxConfig, node_id: str) -> None:
        self.node_id = node_id
        self._main = _ActorHandle(config, node_id)
        standby = dataclasses.replace(config, containers=config.spares, spares=0) if config.spares else None
        self._standby = _ActorHandle(standby, node_id, standby=True) if standby else None
        self._holders: dict[str, tuple[_ActorHandle, Any]] = {}

    @property
    def gone(self) -> bool:
        """Whether its machine has left the cluster for good."""
        return self._main.gone

    @property
    def actors(self) -> list[Any]:
        """The node actor, then the standby if there is one; those that are there now."""
        return [handle.latest() for handle in (self._main, self._standby) if handle is not None]

    async def open(self, images: Sequence[bytes] = (), session_id: str | None = None) -> str:
        session_id = session_id or secrets.token_hex(8)
        try:
            await self._open(images, session_id)
        except NodeLost:
            if self.gone:
                raise
            await self._open(images, session_id)
        return session_id

    async def _open(self, images: Sequence[bytes], session_id: str) -> None:
        use_standby = self._standby is not None and self._standby.is_up and not self._main.is_up
        handle = self._standby if self._standby is not None and use_standby else self._main
        self._holders[session_id] = (handle, handle.actor)
        try:
            await self._call(session_id, "open", images, session_id)
        except BaseException as error:
            if not isinstance(error, asyncio.CancelledError):  # a caller who is cancelled closes what may be open
                self._holders.pop(session_id, None)
            raise

    async def run(self, session_id: str, code: str, timeout_s: float | None = None) -> Execution:
        execution: Execution = await self._call(session_id, "run", session_id, code, timeout_s)
        return execution

    async def close(self, session_id: str) -> None:
        with contextlib.suppress(NodeLost, UnknownSession):
            await self._call(session_id, "close", session_id)
        self._holders.pop(session_id, None)

    async def _call(self, session_id: str, method: str, *arguments: Any) -> Any:
        """Call the actor that holds the session; raises `NodeLost` when that has died, and starts its successor."""
        held = self._holders.get(session_id)
        if held is None:
            raise UnknownSession(f"no session {session_id}")
        handle, actor = held
        try:
            return await _result(getattr(actor, method).remote(*arguments))
        except NodeLost:
            if handle.actor is actor:
                handle.restart()
            raise


def client_nodes(config: SandboxConfig) -> list[RemoteNode]:
    """The nodes that serve this process: its own first, if that is one of them, then the others by chance."""
    if not ray.is_initialized():
        raise UserError("the sandbox pool needs Ray: call ray.init() first, or use SandboxPool.local")
    context = ray.get_runtime_context()
    job_id, own = context.get_job_id(), context.get_node_id()
    nodes = [_remote_node(config, node_id, job_id) for node_id in in_order_of_preference(_serving(config, job_id), own)]
    return [node for node in nodes if not node.gone] or nodes


def _serving(config: SandboxConfig, job_id: str) -> list[str]:
    """Ids of the nodes that serve this job; where nobody has started any, this process's own, or all that may.

    Looked up once: `start_everywhere` comes before the clients.
    """
    found = _known.get((config, job_id)) or serving_nodes(job_id, _settings_hash(config))
    if not found:
        may = [node.node_id for node in sandbox_nodes(config)]
        own = ray.get_runtime_context().get_node_id()
        found = [own] if own in may else may
    _known[config, job_id] = found
    return found


_known: dict[tuple[SandboxConfig, str], list[str]] = {}


@functools.lru_cache(maxsize=1024)
def _remote_node(config: SandboxConfig, node_id: str, _job_id: str) -> RemoteNode:
    return RemoteNode(config, node_id)


def start_everywhere(config: SandboxConfig) -> list[RemoteNode]:
    """Start, or find, the actors of the nodes that may run interpreters, and wait until they can serve.

    Where `sandbox.node_resource` names no nodes, those that lack what it takes are left out, with a warning.

    Raises:
        UserError: a node that was named lacks what `config.backend` needs, or all do.
        SandboxUnavailable: likewise, with interpreters that do not come up.
    """
    if not ray.is_initialized():
        raise UserError("the sandbox pool needs Ray: call ray.init() first")
    started = [(node, RemoteNode(config, node.node_id)) for node in sandbox_nodes(config)]
    starts = [[actor.ready.remote() for actor in remote.actors] for _, remote in started]
    deadline = time.monotonic() + config.start_timeout_s + _PREPARE_SECONDS
    up, failures = [], []
    for (node, remote), ready in zip(started, starts, strict=True):
        try:
            _wait(ready, max(deadline - time.monotonic(), 0.0))
            up.append(remote)
        except (SandboxError, UserError) as error:
            failures.append(_of_node(error, node) if len(started) > 1 else error)
            _kill(remote.actors)
    if failures and (config.node_resource or not up):
        shut_down(up)
        raise failures[0]
    for failure in failures:
        _logger.warning("sandbox: no interpreters there: %s", failure)
    return up


def _of_node(error: SandboxError | UserError, node: RayNode) -> SandboxError | UserError:
    return type(error)(f"node {node.address}: {error}")


def stats(nodes: Sequence[RemoteNode]) -> list[dict[str, Any]]:
    """`SandboxNode.stats` of the node actors; their standbys are left out."""
    return list(_wait([node.actors[0].stats.remote() for node in nodes], SHUTDOWN_SECONDS))


async def take_metrics(nodes: Sequence[RemoteNode], timeout_s: float) -> list[dict[str, emit.Sample]]:
    """What the node actors and standbys have told since the last call; those that do not answer are left out."""
    calls = [actor.take_metrics.remote() for node in nodes if not node.gone for actor in node.actors]
    waits = [asyncio.wait_for(_result(call), timeout_s) for call in calls]
    answers = await asyncio.gather(*waits, return_exceptions=True)
    return [answer for answer in answers if not isinstance(answer, BaseException)]


def shut_down(nodes: Sequence[RemoteNode], drain_s: float = 0.0) -> None:
    """Wait up to `drain_s` for open sessions to end, then shut the nodes down and end their actors.

    What actors that were killed left on this machine is removed too; on others their next start does that.
    """
    actors = [actor for node in nodes if not node.gone for actor in node.actors]
    ends = [actor.shutdown.remote(drain_s) for actor in actors]
    if ends:
        ray.wait(ends, num_returns=len(ends), timeout=drain_s + SHUTDOWN_SECONDS)  # one that died keeps none waiting
    for end in ends:
        try:
            _wait(end, 0.0)
        except (SandboxError, RayError) as error:
            _logger.warning("sandbox: shutting down: %s", error)
    _kill(actors)
    _remote_node.cache_clear()
    _known.clear()
    reaper.remove_dead_directories()


def _kill(actors: Sequence[Any]) -> None:
    for actor in actors:
        with contextlib.suppress(RayError, ValueError):
            ray.kill(actor)


def _settings_hash(config: SandboxConfig) -> str:
    settings = json.dumps(dataclasses.asdict(config), sort_keys=True)
    return hashlib.sha256(settings.encode()).hexdigest()[:8]


def _actor_name(config: SandboxConfig, node_id: str) -> str:
    return actor_name(ray.get_runtime_context().get_job_id(), _settings_hash(config), node_id)


def _get_or_start(config: SandboxConfig, node_id: str, standby: bool) -> Any:
    """The named actor of this job, a node and a configuration; whoever asks first starts it and owns it."""
    actor_class = ray.remote(SandboxNodeActor)
    return actor_class.options(
        name=_actor_name(config, node_id),
        namespace=NAMESPACE,
        get_if_exists=True,
        num_cpus=0,
        max_concurrency=_CONCURRENT_CALLS,
        scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False),
    ).remote(config, standby)


def _wait(references: Any, timeout_s: float) -> Any:
    try:
        return ray.get(references, timeout=timeout_s)
    except GetTimeoutError:
        raise SandboxUnavailable(f"a sandbox node did not answer within {timeout_s:g} s") from None
    except RayTaskError as error:
        raise _cause(error) from None
    except (RayActorError, ActorUnschedulableError) as error:
        raise NodeLost(f"a sandbox node has died: {error}") from None


async def _result(reference: Awaitable[Any]) -> Any:
    """Await a call; exceptions of the node arrive as what they are there, without Ray's wrapping."""
    try:
        return await reference
    except RayTaskError as error:
        raise _cause(error) from None
    except (RayActorError, ActorUnschedulableError) as error:
        raise NodeLost(f"the sandbox node has died: {error}") from None


def _cause(error: RayTaskError) -> Exception:
    cause = error.cause
    if isinstance(cause, (SandboxError, UserError)):
        return cause
    return SandboxUnavailable(f"a sandbox node failed: {type(cause).__name__}: {cause}")
