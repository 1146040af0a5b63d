"""Nodes of a client: handles of their actors, found at the first use and kept.

A rollout worker uses the actors of its own node, and a few others only where that one cannot serve. So what all workers
of a cluster look up grows with their number, not with workers times nodes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import secrets
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from codedance_verl.errors import UserError
from codedance_verl.sandbox.actor_calls import result
from codedance_verl.sandbox.config import SandboxConfig
from codedance_verl.sandbox.directory import Directory
from codedance_verl.sandbox.errors import NodeLost, SandboxError, UnknownSession
from codedance_verl.types import Execution

OTHERS_ASKED = 3
"""Nodes that a session asks after its own has refused it; a caller that tries again asks others."""

_logger = logging.getLogger(__name__)


class Finder(Protocol):
    """Finds the actors of a node in the cluster."""

    def get(self, config: SandboxConfig, node_id: str) -> Any | None:
        """Returns the actor that has the name now; None where none has."""

    def get_or_start(self, config: SandboxConfig, node_id: str, standby: bool) -> Any:
        """Returns the actor of the name, started where there is none."""

    def is_alive(self, node_id: str) -> bool:
        """Returns true while the cluster counts the node as alive."""


def standby_config(config: SandboxConfig) -> SandboxConfig | None:
    """Returns what the standby beside a node actor is started with; None where there is none."""
    standby = config.standby_containers
    return config.replace(containers=standby, standby_containers=0) if standby else None


class _ActorHandle:
    """A node actor by name. `restart` replaces one that has died; until its successor is ready, `is_up` is false.

    `gone`: its Ray node has left the cluster, so nothing can replace it.
    """

    def __init__(self, config: SandboxConfig, node_id: str, finder: Finder, standby: bool = False) -> None:
        self._config = config
        self._node_id = node_id
        self._finder = finder
        self._is_standby = standby
        self._actor: Any = None
        self._restart: asyncio.Future[None] | None = None
        self.gone = False

    @property
    def actor(self) -> Any:
        """The actor, found or started at the first use."""
        if self._actor is None:
            self._actor = self._finder.get_or_start(self._config, self._node_id, self._is_standby)
        return self._actor

    def latest(self) -> Any:
        """Returns the actor that has the name now: another process may have started a successor."""
        return self._finder.get(self._config, self._node_id) or self.actor

    @property
    def is_up(self) -> bool:
        return self._restart is None or self._restart.done()

    def restart(self) -> None:
        if not self.gone and not self._finder.is_alive(self._node_id):
            self.gone = True
            _logger.warning("sandbox: node %s has left the cluster", self._node_id[:12])
        if self.is_up and not self.gone:
            self._actor = self._finder.get_or_start(self._config, self._node_id, self._is_standby)
            self._restart = asyncio.ensure_future(self._until_ready())

    async def _until_ready(self) -> None:
        try:
            await result(self.actor.ready.remote())
        except (SandboxError, UserError) as error:
            _logger.warning("sandbox: a node does not come up again: %s", error)


class RemoteNode:
    """A client's view of one machine: its node actor, and a standby beside it with interpreters of its own.

    When the node actor dies its sessions die with it; new ones go to the standby until a successor is ready.
    """

    def __init__(self, config: SandboxConfig, node_id: str, finder: Finder) -> None:
        self.config = config
        self.node_id = node_id
        self._main = _ActorHandle(config, node_id, finder)
        standby = standby_config(config)
        self._standby = _ActorHandle(standby, node_id, finder, standby=True) if standby else None
        self._holders: dict[str, tuple[_ActorHandle, Any]] = {}

    @property
    def gone(self) -> bool:
        """True once its machine has left the cluster for good."""
        return self._main.gone

    @property
    def actors(self) -> list[Any]:
        """The node actor, then the standby if there is one; started where there is none."""
        return [handle.latest() for handle in (self._main, self._standby) if handle is not None]

    async def open(self, images: Sequence[bytes] = (), session_id: str | None = None) -> str:
        session_id = session_id or secrets.token_hex(8)
        try:
            await self._open(images, session_id)
        except NodeLost:
            # Once more: the first attempt found the actor dead and has started its successor, or the standby takes it.
            if self.gone:
                raise
            await self._open(images, session_id)
        return session_id

    async def _open(self, images: Sequence[bytes], session_id: str) -> None:
        # The standby serves only while the main actor starts: its own containers are few.
        use_standby = self._standby is not None and self._standby.is_up and not self._main.is_up
        handle = self._standby if self._standby is not None and use_standby else self._main
        # Before the call, so that `close` reaches this actor also when `open` never returns.
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
        """Calls the actor that holds the session; raises `NodeLost` when that has died, and starts its successor."""
        held = self._holders.get(session_id)
        if held is None:
            raise UnknownSession(f"no session {session_id}")
        handle, actor = held
        try:
            return await result(getattr(actor, method).remote(*arguments))
        except NodeLost:
            # Many sessions notice the same death: the first one restarts the actor.
            if handle.actor is actor:
                handle.restart()
            raise


class ClientNodes:
    """The nodes that one process asks for a session, in their order: its own if that serves, then others by chance.

    Of the others it knows a page of the directory, and one more whenever all that it asked have refused; those that
    have left the cluster are passed over. `unpublished` returns the nodes to use where nobody has started any.
    """

    def __init__(
        self,
        config: SandboxConfig,
        own: str,
        directory: Directory,
        finder: Finder,
        unpublished: Callable[[], Sequence[str]],
    ) -> None:
        self._config = config
        self._own = own
        self._directory = directory
        self._finder = finder
        self._nodes: dict[str, RemoteNode] = {}
        self._others: list[str] = []
        self._unread = list(range(directory.pages()))
        if self._unread:
            self._own_serves = directory.has(own)
        else:
            found = unpublished()
            self._own_serves = own in found
            self._others = [node_id for node_id in found if node_id != own]
        # Each process reads pages in an order of its own, so refused sessions spread over the cluster.
        random.shuffle(self._unread)

    def __iter__(self) -> Iterator[RemoteNode]:
        if self._own_serves:
            yield self.node(self._own)
        while not (others := self._living()) and self._learn():
            pass
        # By chance, since loads of other nodes are not known here.
        for node_id in random.sample(others, min(OTHERS_ASKED, len(others))):
            yield self.node(node_id)
        self._learn()  # a caller that comes this far was refused by all of them

    def node(self, node_id: str) -> RemoteNode:
        """Returns the node of this id; the same object at every call, as it knows which sessions it holds."""
        if node_id not in self._nodes:
            self._nodes[node_id] = RemoteNode(self._config, node_id, self._finder)
        return self._nodes[node_id]

    def _living(self) -> list[str]:
        return [node_id for node_id in self._others if node_id not in self._nodes or not self._nodes[node_id].gone]

    def _learn(self) -> bool:
        """Reads one more page of the directory; false where all are read."""
        if not self._unread:
            return False
        found = self._directory.page(self._unread.pop())
        self._others += [node_id for node_id in found if node_id != self._own]
        return True
