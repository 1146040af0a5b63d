"""Client's end of a session on a node of the same machine, over the node's socket (`client_socket.py`)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from codedance_verl.sandbox import session_messages as messages
from codedance_verl.sandbox import wire
from codedance_verl.sandbox.config import SandboxConfig
from codedance_verl.sandbox.errors import NodeLost, SandboxError
from codedance_verl.sandbox.image_store import digests_of
from codedance_verl.sandbox.wire import Message, Peer
from codedance_verl.types import Execution

_SLACK_SECONDS = 60.0
"""Time beyond all limits of a node within which it answers, before it counts as lost."""

_OPEN_ATTEMPTS = 3


class LocalSession:
    """A session by a connection of its own. Calls run one after another; `close` ends it whatever it does.

    Images that come back are not decoded.
    """

    def __init__(self, path: Path, session_id: str, config: SandboxConfig) -> None:
        self._path = path
        self._session_id = session_id
        self._config = config
        self._peer = Peer()
        self._calls = 0
        self._turn = asyncio.Lock()

    async def open(self, images: Sequence[bytes]) -> None:
        """Opens the session; raises what `SandboxNode.open` does, and `NodeLost`.

        Raises:
            OSError: nothing of this user answers at the path.
        """
        digests = await digests_of(images)
        self._peer = await wire.connect(self._path)
        if self._peer.uid != os.geteuid():
            self._peer.close()
            raise PermissionError(f"{self._path} belongs to a process of uid {self._peer.uid}")
        try:
            await self._open(dict(zip(digests, images, strict=True)), digests)
        except BaseException:
            self._peer.close()
            raise

    async def _open(self, images: Mapping[bytes, bytes], digests: Sequence[bytes]) -> None:
        request = {"op": "open", "version": messages.VERSION, "session": self._session_id}
        self._send(request | {"digests": list(digests)})
        answer = await self._answer(self._longest_open_s)
        if answer.get("op") == "images_needed":
            self._send({"op": "images", "images": [images[digest] for digest in answer["digests"]]})
            answer = await self._answer(self._longest_open_s)
        if answer.get("op") != "opened":
            raise SandboxError(f"the sandbox node answers {answer.get('op')!r} to an open")

    async def run(self, code: str, timeout_s: float | None) -> Execution:
        """Runs one cell; raises what `SandboxNode.run` does, and `NodeLost`. Images that come back are not checked."""
        async with self._turn:
            self._calls += 1
            call = self._calls
            self._send(messages.run_request(call, code, timeout_s))
            longest_s = (timeout_s or self._config.cell_timeout_s) + self._longest_open_s + self._config.queue_timeout_s
            answer = await self._answer(longest_s, call)
            try:
                return messages.execution_from(answer)
            except (KeyError, TypeError, ValueError) as error:
                raise SandboxError(f"the answer of the sandbox node is none: {error}") from None

    async def close(self) -> None:
        """Ends the session and all its processes; they are gone shortly after."""
        self._peer.close()

    @property
    def _longest_open_s(self) -> float:
        config = self._config
        return config.queue_timeout_s + _OPEN_ATTEMPTS * config.open_timeout_s + config.kill_grace_s + _SLACK_SECONDS

    def _send(self, message: Message) -> None:
        try:
            self._peer.send(message)
        except wire.WireError as error:
            raise SandboxError(f"too long for the sandbox node: {error}") from None

    async def _answer(self, timeout_s: float, call: int = 0) -> Message:
        """Returns the next answer, that to `call` where one is given: the caller of an earlier one may have left."""
        while True:
            try:
                answer = await self._peer.receive(timeout_s)
            except TimeoutError:
                self._peer.close()
                raise NodeLost(f"the sandbox node has not answered within {timeout_s:g} s") from None
            if answer is None:
                reason = self._peer.fault or "it has ended"
                raise NodeLost(f"the connection to the sandbox node is lost: {reason}")
            if call and answer.get("call", call) != call:
                continue
            messages.raise_failure(answer)
            return answer
