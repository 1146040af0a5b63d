"""Pool of sessions in the interpreters of this Ray cluster, or of this process.

    pool = SandboxPool.connect(config)                  # in any process of a Ray job
    async with pool.session(image_png) as session:
        execution = await session.run("input_image.size")

One actor per Ray node owns that node's interpreters (`ray_node.py`). A client takes sessions on its own node and asks a
few others only when that one cannot serve (`client_nodes.py`); one whose node has none takes them on others by chance.
A session is closed when its `async with` block is left, however it is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any, Protocol

from codedance_verl.errors import UserError
from codedance_verl.sandbox.config import SandboxConfig
from codedance_verl.sandbox.errors import NodeLost, SandboxBusy, SandboxError, SandboxUnavailable
from codedance_verl.sandbox.execution import lost
from codedance_verl.sandbox.node import SandboxNode
from codedance_verl.types import Execution, ExecutionStatus

CLOSE_SECONDS = 10.0
_logger = logging.getLogger(__name__)


class Node(Protocol):
    """Interpreters of a machine as seen by a client; `SandboxNode` itself is one."""

    async def open(self, images: Sequence[bytes] = (), session_id: str | None = None) -> str: ...

    async def run(self, session_id: str, code: str, timeout_s: float | None = None) -> Execution: ...

    async def close(self, session_id: str) -> None: ...


class SandboxSession:
    """An open session: variables persist from cell to cell. Get one from `SandboxPool.session`."""

    def __init__(self, pool: SandboxPool, images: Sequence[bytes], cleanup: contextlib.AsyncExitStack) -> None:
        self._pool = pool
        self._images = images
        self._cleanup = cleanup
        self._node: Node | None = None
        self.session_id = ""

    async def run(self, code: str, timeout_s: float | None = None) -> Execution:
        """Runs one cell. What the code does never raises; raises `SandboxError` when it could not be run at all.

        `timeout_s` is the cell's own run time, `sandbox.cell_timeout_s` by default. After a failed cell the variables
        are what they were before it; after `killed` they are gone, and the next cell starts without any.
        """
        node = self._node or await self.open()
        try:
            return await node.run(self.session_id, code, timeout_s)
        except NodeLost:
            self._node = None
            # Variables died with the node: this result says so, and the next cell opens a session elsewhere.
            return lost(ExecutionStatus.KILLED)

    async def open(self) -> Node:
        """Opens the session on the first node that can serve, under a new id."""
        self.session_id = secrets.token_hex(8)
        self._node = await self._pool.open_on_any(self.session_id, self._images, self._cleanup)
        return self._node


class SandboxPool:
    """Opener of sessions on the nodes it was given: it asks them in their order until one can serve."""

    def __init__(self, nodes: Iterable[Node]) -> None:
        self._nodes = nodes

    @classmethod
    def connect(cls, config: SandboxConfig | Mapping[str, Any]) -> SandboxPool:
        """Returns the pool of the Ray job this process belongs to; a node actor is started if none runs yet.

        Cheap, does not wait, and the same pool for the same configuration: call it wherever a session is needed.
        Raises `UserError` for a bad configuration, or when Ray is not initialised.
        """
        # Imported here, since a local pool runs without Ray.
        from codedance_verl.sandbox import ray_node

        return cls(ray_node.client_nodes(_checked(config)))

    @classmethod
    @contextlib.asynccontextmanager
    async def local(cls, config: SandboxConfig | Mapping[str, Any]) -> AsyncIterator[SandboxPool]:
        """Starts a pool of this process alone, without Ray; its interpreters end with the block."""
        node = SandboxNode(_checked(config))
        await node.start()
        try:
            yield cls([node])
        finally:
            # Containers are removed also when the caller is cancelled.
            await asyncio.shield(node.shutdown())

    @contextlib.asynccontextmanager
    async def session(self, *images: bytes) -> AsyncIterator[SandboxSession]:
        """Opens a session for one trajectory; `images` are encoded files, offered as `input_images` and as files.

        Raises `SandboxBusy` when every place stays taken for `sandbox.queue_timeout_s`, `SandboxInputError` when the
        images are none, `SandboxUnavailable` when no interpreter serves, `SandboxFull` when none has room. The images
        are decoded while the caller goes on: one that breaks off half-way makes the first `run` raise
        `SandboxInputError`.
        """
        async with contextlib.AsyncExitStack() as cleanup:
            session = SandboxSession(self, images, cleanup)
            await session.open()
            yield session

    async def open_on_any(self, session_id: str, images: Sequence[bytes], cleanup: contextlib.AsyncExitStack) -> Node:
        """Opens a session on the first node that can serve; `cleanup` gets what closes it."""
        refusal: SandboxError | None = None
        for node in self._nodes:
            if refusal is not None:
                _logger.warning("sandbox: %s; trying another node", refusal)
            # Registered first, and with an id of our own: an `open` that is cancelled half-way is undone as well.
            cleanup.push_async_callback(_close, node, session_id)
            try:
                await node.open(images, session_id)
                return node
            except (SandboxBusy, SandboxUnavailable) as error:
                refusal = error
        raise refusal or SandboxUnavailable("every sandbox node has left the cluster")


class RayPool(SandboxPool):
    """Pool as its starter holds it: `shutdown` ends it."""

    def __init__(self, nodes: Sequence[Any]) -> None:
        super().__init__(nodes)
        self._actors = nodes

    def shutdown(self, drain_s: float = 0.0) -> None:
        """Ends all sessions and interpreters on all nodes; blocks until they are gone, at most half a minute.

        With `drain_s` no more sessions are opened and the open ones get that long, in seconds, to end by themselves.
        """
        from codedance_verl.sandbox import ray_node

        ray_node.shut_down(self._actors, drain_s)

    def stats(self) -> list[dict[str, Any]]:
        """Returns `SandboxNode.stats` of every node."""
        from codedance_verl.sandbox import ray_node

        return ray_node.stats(self._actors)


def get_or_start_pool(config: SandboxConfig | Mapping[str, Any]) -> RayPool:
    """Starts the interpreters on the Ray nodes that may run them, or finds them running; blocks until they can serve.

    To be called once where the job starts (it owns the actors), after `ray.init`. Nodes without what it takes are left
    out unless `sandbox.node_resource` names them. Raises `UserError` when a named node, or every one, lacks what
    `config.backend` needs, `SandboxUnavailable` when interpreters do not come up there.
    """
    from codedance_verl.sandbox import ray_node

    return RayPool(ray_node.start_everywhere(_checked(config)))


async def _close(node: Node, session_id: str) -> None:
    try:
        # Shielded: a rollout that is cancelled, or a close that takes too long, is still carried out.
        await asyncio.wait_for(asyncio.shield(node.close(session_id)), CLOSE_SECONDS)
    except (TimeoutError, SandboxError) as error:
        _logger.warning("sandbox: session %s may stay open until its lease ends: %s", session_id, error)


def _checked(config: SandboxConfig | Mapping[str, Any]) -> SandboxConfig:
    if isinstance(config, SandboxConfig):
        return config
    if not isinstance(config, Mapping):
        raise UserError(f"sandbox: got {type(config).__name__}, a mapping is needed")
    return SandboxConfig.from_mapping(config)
