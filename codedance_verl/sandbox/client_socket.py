"""Unix socket on which a node serves the sessions of clients on its own machine, beside its Ray actor.

It lies in a folder of mode 0700 that no container has mounted, and answers processes of the node's own user alone. A
connection is one session, so a broken one costs no other.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from codedance_verl.errors import UserError
from codedance_verl.sandbox import session_messages as messages
from codedance_verl.sandbox import wire
from codedance_verl.sandbox.docker import reaper
from codedance_verl.sandbox.errors import SandboxError, SandboxUnavailable
from codedance_verl.sandbox.image_store import ImageStore
from codedance_verl.sandbox.wire import Message, Peer
from codedance_verl.types import Execution

REQUEST_SECONDS = 30.0
"""Longest time until a client that has connected says what it wants, and until it sends an image it was asked for."""

_BACKLOG = 4096
_NAME = "clients.sock"
_logger = logging.getLogger(__name__)


class Sessions(Protocol):
    """Owner of the sessions that are served; images that come back may be unchecked."""

    async def open(self, images: Sequence[bytes] = (), session_id: str | None = None) -> str: ...

    async def run(self, session_id: str, code: str, timeout_s: float | None = None) -> Execution: ...

    async def close(self, session_id: str) -> None: ...


class ClientSocket:
    """Server of one node; `start` it in the node's event loop."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._store = ImageStore()
        self._serving: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._directory: Path | None = None

    async def start(self) -> Path:
        """Listens; returns the path of the socket."""
        # A folder of its own: that of the interpreters' socket is mounted into containers.
        self._directory = await asyncio.to_thread(reaper.owned_directory)
        wire.allow_many_connections()
        path = self._directory / _NAME
        self._server = await wire.listen(path, self._connected, _BACKLOG)
        return path

    async def stop(self) -> None:
        """Ends all connections, and their sessions with them."""
        if self._server is not None:
            self._server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)

    def _connected(self, peer: Peer) -> None:
        if peer.uid != os.geteuid():
            _logger.warning("sandbox: a process of uid %d is no client of this node", peer.uid)
            peer.close()
            return
        peer.trust()
        task = asyncio.create_task(self._serve(peer))
        # A client that leaves while its cell runs waits for no answer.
        peer.on_end = task.cancel
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, peer: Peer) -> None:
        session_id = ""
        try:
            request = await peer.receive(REQUEST_SECONDS)
            if request is None:
                return
            await self._open(peer, opened := _session_of(request), request)
            session_id = opened  # before that the name may be another's; what is half open ends with the call
            while (request := await peer.receive()) is not None:
                await self._run(peer, session_id, request)
        except _Refused:
            pass
        except TimeoutError:
            late = f"the client has sent nothing for {REQUEST_SECONDS:g} s"
            peer.send(messages.failure(SandboxUnavailable(late)))
        except (KeyError, TypeError, ValueError, wire.WireError) as error:
            _logger.warning("sandbox: a client's request is none: %s: %s", type(error).__name__, error)
            peer.send(messages.failure(SandboxError(f"the sandbox node cannot read a request: {error}")))
        finally:
            if peer.fault is not None:
                _logger.warning("sandbox: a client's connection is closed: %s", peer.fault)
            peer.on_end = None
            peer.close()
            if session_id:
                with contextlib.suppress(SandboxError):
                    await self._sessions.close(session_id)

    async def _open(self, peer: Peer, session_id: str, request: Message) -> None:
        async def fetch(digests: Sequence[bytes]) -> Sequence[bytes]:
            peer.send({"op": "images_needed", "digests": list(digests)})
            answer = await peer.receive(REQUEST_SECONDS)
            if answer is None:
                raise EOFError
            return list(answer["images"])

        try:
            images = await self._store.get([bytes(digest) for digest in request["digests"]], fetch)
            await self._sessions.open(images, session_id)
        except (SandboxError, UserError) as error:
            peer.send(messages.failure(error))
            raise _Refused from None
        except EOFError:
            raise _Refused from None
        peer.send({"op": "opened"})

    async def _run(self, peer: Peer, session_id: str, request: Message) -> None:
        call, code, timeout_s = int(request["call"]), messages.code_of(request), request["timeout_s"]
        try:
            execution = await self._sessions.run(session_id, code, timeout_s)
            answer = messages.execution_message(call, execution)
        except (SandboxError, UserError) as error:
            answer = messages.failure(error) | {"call": call}
        peer.send(answer)


class _Refused(Exception):
    """The session was not opened, and the client knows."""


def _session_of(request: Message) -> str:
    if request.get("op") != "open" or request.get("version") != messages.VERSION:
        raise ValueError("a client of another version")
    session_id = request["session"]
    if not isinstance(session_id, str) or not session_id:
        raise TypeError("a session needs a name")
    return session_id
