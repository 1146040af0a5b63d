"""Nodes of a client: handles of their actors, found at the first use and kept.

A rollout worker uses the actors of its own node, and a few others only where that one cannot serve. So what all workers
of a cluster look up grows with their number, not with workers times nodes. Sessions on its own node go over the socket
of their actor (`local_session.py`), all others by calls of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from codedance_verl.errors import UserError
from codedance_verl.sandbox.actor_calls import ActorSession, result
from codedance_verl.sandbox.config import SandboxConfig
from codedance_verl.sandbox.directory import Directory
from codedance_verl.sandbox.errors import NodeLost, SandboxError, UnknownSession
from codedance_verl.sandbox.interpreter import MAX_INPUT_BYTES
from codedance_verl.sandbox.local_session import LocalSession
from codedance_verl.sandbox.returned_images import BadImage, with_decoded_images
from codedance_verl.sandbox.session_messages import MAX_IMAGES
from codedance_verl.types import Execution

OTHERS_ASKED = 3
"""Nodes that a session asks after its own has refused it; a caller that tries again asks others."""

_RESTART_PAUSES = (0.1, 0.3, 1.0, 3.0)
_logger = logging.getLogger(__name__)


class Finder(Protocol):
    """Finds the actors of a node in the cluster, by their index on it."""

    def get(self, config: SandboxConfig, node_id: str, index: int) -> Any | None:
        """Returns the actor that has the name now; None where none has."""

    def get_or_start(self, config: SandboxConfig, node_id: str, standby: bool, index: int) -> Any:
        """Returns the actor of the name, started where there is none."""

    def is_alive(self, node_id: str) -> bool:
        """Returns true while the cluster counts the node as alive."""


def standby_config(config: SandboxConfig) -> SandboxConfig | None:
    """Returns what the standby beside a node actor is started with; None where there is none."""
    standby = config.standby_containers
    return config.replace(containers=standby, standby_containers=0) if standby else None


class _ActorHandle:
    """A node actor by name. `restart` replaces one that has died; until its successor is ready, `is_up` is false.

    `gone`: its Ray node has left the cluster, so nothing can replace it. `sessions`: those that this process has there.
    """

    def __init__(
        self, config: SandboxConfig, node_id: str, finder: Finder, index: int = 0, standby: bool = False
    ) -> None:
        self._config = config
        self._node_id = node_id
        self._finder = finder
        self._index = index
        self._is_standby = standby
        self._actor: Any = None
        self._socket: Path | None = None
        self._socket_answers = True
        self._restart: asyncio.Future[None] | None = None
        self.gone = False
        self.sessions = 0

    @property
    def actor(self) -> Any:
        """The actor, found or started at the first use."""
        if self._actor is None:
            self._find()
        return self._actor

    def latest(self) -> Any:
        """Returns the actor that has the name now: another process may have started a successor."""
        return self._finder.get(self._config, self._node_id, self._index) or self.actor

    async def socket(self) -> Path | None:
        """Returns the path of the actor's socket, asked for once; None once it has not answered.

        Raises what the start of its node does.
        """
        actor = self.actor
        if self._socket_answers and self._socket is None:
            path = Path(await result(actor.client_socket.remote()))
            if self._actor is not actor:  # replaced meanwhile
                return path
            self._socket = path
        return self._socket if self._socket_answers else None

    def socket_failed(self, error: OSError) -> None:
        """Notes that nothing answers at the socket of the present actor."""
        if self._socket_answers:
            _logger.warning("sandbox: the socket of a node does not answer: %s; its calls go through Ray", error)
        self._socket_answers = False

    @property
    def is_up(self) -> bool:
        return self._restart is None or self._restart.done()

    def restart(self) -> None:
        if not self.gone and not self._finder.is_alive(self._node_id):
            self.gone = True
            _logger.warning("sandbox: node %s has left the cluster", self._node_id[:12])
        if self.is_up and not self.gone:
            self._find()
            self._restart = asyncio.ensure_future(self._until_ready())

    def _find(self) -> None:
        self._actor = self._finder.get_or_start(self._config, self._node_id, self._is_standby, self._index)
        self._socket, self._socket_answers = None, True

    async def _until_ready(self) -> None:
        for pause in (*_RESTART_PAUSES, None):
            try:
                await result(self._actor.ready.remote())
                return
            except (SandboxError, UserError) as error:
                if pause is None or not isinstance(error, NodeLost):
                    _logger.warning("sandbox: a node does not come up again: %s", error)
                    return
            # A closed connection is noticed before Ray counts the actor as dead: its name was still taken.
            await asyncio.sleep(pause)
            self._find()


_NO_SOCKET = (FileNotFoundError, ConnectionRefusedError, PermissionError)
"""Errors of a connection that will come again."""


@dataclass
class _Held:
    """A session of this process: the actor that has it, by its handle then, and the way to it."""

    handle: _ActorHandle
    actor: Any
    session: ActorSession | LocalSession


class RemoteNode:
    """A client's view of one machine: its node actors, and beside a single one a standby with interpreters of its own.

    Sessions are spread over the actors. When one dies its sessions die with it; new ones go to the others, or to the
    standby, until a successor is ready. On a `local` node sessions go over its socket, not through Ray.
    """

    def __init__(
        self, config: SandboxConfig, node_id: str, finder: Finder, actors: int = 1, local: bool = False
    ) -> None:
        self.config = config
        self.node_id = node_id
        self._is_local = local
        self._mains = [_ActorHandle(config, node_id, finder, index) for index in range(actors)]
        standby = standby_config(config) if actors == 1 else None
        self._standby = _ActorHandle(standby, node_id, finder, standby=True) if standby else None
        self._held: dict[str, _Held] = {}

    @property
    def gone(self) -> bool:
        """True once its machine has left the cluster for good."""
        return any(handle.gone for handle in self._mains)

    @property
    def is_up(self) -> bool:
        """True while no actor of it is being replaced."""
        return all(handle.is_up for handle in self._mains)

    @property
    def main_actors(self) -> list[Any]:
        """The node actors; started where there are none."""
        return [handle.latest() for handle in self._mains]

    @property
    def actors(self) -> list[Any]:
        """The node actors, then the standby if there is one; started where there is none."""
        return self.main_actors + ([self._standby.latest()] if self._standby is not None else [])

    async def open(self, images: Sequence[bytes] = (), session_id: str | None = None) -> str:
        session_id = session_id or secrets.token_hex(8)
        try:
            await self._open(images, session_id)
        except NodeLost:
            # Once more: the first attempt found the actor dead and has started its successor, or another takes it.
            if self.gone:
                raise
            await self._open(images, session_id)
        return session_id

    async def run(self, session_id: str, code: str, timeout_s: float | None = None) -> Execution:
        """Runs one cell; an image that is none ends the session as the loss of its node does (`NodeLost`)."""
        held = self._holder(session_id)
        with self._noticing(held):
            execution = await held.session.run(code, timeout_s)
        if not execution.images:
            return execution
        try:
            # Decoded here and not by the node, which serves many processes like this one.
            return await asyncio.to_thread(with_decoded_images, execution, self.config.max_image_pixels)
        except BadImage as error:
            _logger.warning("sandbox: session %s is ended: it sent a broken image: %s", session_id, error)
            await self.close(session_id)
            raise NodeLost(f"the session was ended: it sent a broken image: {error}") from None

    async def close(self, session_id: str) -> None:
        held = self._held.get(session_id)
        if held is None:
            return
        try:
            with contextlib.suppress(NodeLost, UnknownSession), self._noticing(held):
                await held.session.close()
        finally:
            self._release(session_id)

    async def _open(self, images: Sequence[bytes], session_id: str) -> None:
        handle = self._choose()
        try:
            if self._may_be_local(images) and await self._open_local(handle, images, session_id):
                return
            await self._open_with(handle, ActorSession(handle.actor, session_id), images, session_id)
        except BaseException as error:
            if not isinstance(error, asyncio.CancelledError):  # a caller who is cancelled closes what may be open
                self._release(session_id)
            raise

    def _choose(self) -> _ActorHandle:
        """Returns the actor with the fewest sessions of this process, of those that are up."""
        up = [handle for handle in self._mains if handle.is_up]
        # The standby serves only while the main actor starts: its own containers are few.
        if not up and self._standby is not None and self._standby.is_up:
            return self._standby
        # By chance among equals, or all processes would begin with the same one.
        return min(up or self._mains, key=lambda handle: (handle.sessions, random.random()))

    def _may_be_local(self, images: Sequence[bytes]) -> bool:
        return self._is_local and len(images) <= MAX_IMAGES and sum(map(len, images)) <= MAX_INPUT_BYTES

    async def _open_local(self, handle: _ActorHandle, images: Sequence[bytes], session_id: str) -> bool:
        """Opens a session over the actor's socket; false where nothing answers there."""
        actor = handle.actor
        try:
            path = await handle.socket()
            if path is None:
                return False
            await self._open_with(handle, LocalSession(path, session_id, self.config), images, session_id)
        except NodeLost:
            if handle.actor is actor:
                handle.restart()
            raise
        except OSError as error:
            # Not of a successor, whose socket is another one; nor for what passes, as a lack of descriptors does.
            if handle.actor is actor and isinstance(error, _NO_SOCKET):
                handle.socket_failed(error)
            return False
        return True

    async def _open_with(
        self, handle: _ActorHandle, session: ActorSession | LocalSession, images: Sequence[bytes], session_id: str
    ) -> None:
        self._release(session_id)
        # Before the call, so that `close` reaches this actor also when `open` never returns.
        held = self._held[session_id] = _Held(handle, handle.actor, session)
        handle.sessions += 1
        with self._noticing(held):
            await session.open(images)

    def _holder(self, session_id: str) -> _Held:
        held = self._held.get(session_id)
        if held is None:
            raise UnknownSession(f"no session {session_id}")
        return held

    def _release(self, session_id: str) -> None:
        held = self._held.pop(session_id, None)
        if held is not None:
            held.handle.sessions -= 1

    @contextlib.contextmanager
    def _noticing(self, held: _Held) -> Iterator[None]:
        """Starts the successor of an actor that turns out to have died."""
        try:
            yield
        except NodeLost:
            # Many sessions notice the same death: the first one restarts the actor.
            if held.handle.actor is held.actor:
                held.handle.restart()
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
        self._actors: dict[str, int] = {}
        self._others: list[str] = []
        self._unread = list(range(directory.pages()))
        if self._unread:
            self._own_serves = (actors := directory.actors(own)) > 0
            self._actors[own] = actors
        else:
            found = unpublished()
            self._own_serves = own in found
            self._know(dict.fromkeys(found, 1))
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
            actors, local = self._actors.get(node_id) or 1, node_id == self._own
            self._nodes[node_id] = RemoteNode(self._config, node_id, self._finder, actors, local)
        return self._nodes[node_id]

    def _living(self) -> list[str]:
        return [node_id for node_id in self._others if node_id not in self._nodes or not self._nodes[node_id].gone]

    def _learn(self) -> bool:
        """Reads one more page of the directory; false where all are read."""
        if not self._unread:
            return False
        self._know(self._directory.page(self._unread.pop()))
        return True

    def _know(self, actors: Mapping[str, int]) -> None:
        self._actors |= actors
        self._others += [node_id for node_id in actors if node_id != self._own]
