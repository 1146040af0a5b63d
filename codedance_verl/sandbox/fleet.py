"""The interpreters of one node: starts them, replaces the ones that die, and hands out places in them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import shutil
from collections import deque
from pathlib import Path

from codedance_verl.sandbox import reaper, wire
from codedance_verl.sandbox.config import SandboxConfig
from codedance_verl.sandbox.errors import SandboxBusy, SandboxUnavailable
from codedance_verl.sandbox.interpreter import Interpreter
from codedance_verl.sandbox.launcher import SOCKET_NAME, Launcher
from codedance_verl.sandbox.wire import Message, Peer

HELLO_SECONDS = 5.0
STOP_SECONDS = 20.0
_BACKLOG = 1024
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 10.0
_PRIVATE = 0o600
_FAILURES_TO_GIVE_UP = 3
_logger = logging.getLogger(__name__)


class Fleet:
    """`config.containers` interpreters, kept alive. Lives in one event loop."""

    def __init__(self, config: SandboxConfig, launcher: Launcher) -> None:
        self._config = config
        self._launcher = launcher
        self._members: dict[str, Interpreter] = {}
        self._waiting: deque[asyncio.Future[Interpreter]] = deque()
        self._keepers: list[asyncio.Task[None]] = []
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._directory = Path()
        self._settled = asyncio.Event()  # the first interpreter is ready, or too many have failed to start
        self._failures_to_start = 0
        self._stopped = False
        self.last_failure = ""
        self.restarts = 0

    async def start(self) -> None:
        """Start all interpreters, wait for the first that can serve. Raises `UserError` or `SandboxUnavailable`."""
        await asyncio.to_thread(reaper.remove_dead_directories)
        await asyncio.to_thread(self._launcher.prepare)
        self._directory = reaper.owned_directory()
        if self._launcher.socket_mode != _PRIVATE:
            self._directory.chmod(0o755)
        socket_path = self._directory / SOCKET_NAME
        self._server = await asyncio.start_unix_server(self._accept, socket_path, backlog=_BACKLOG)
        socket_path.chmod(self._launcher.socket_mode)
        self._keepers = [asyncio.create_task(self._keep_one()) for _ in range(self._config.containers)]
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._settled.wait(), self._config.start_timeout_s)
        if not self.load:
            reason = self.last_failure or f"no interpreter was ready in {self._config.start_timeout_s:g} s"
            await self.stop()
            raise SandboxUnavailable(f"no sandbox came up: {reason}")

    async def stop(self) -> None:
        """End all interpreters and remove what they ran in."""
        self._stopped = True
        names = list(self._members)
        for member in list(self._members.values()):
            member.abandon()
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_exception(SandboxUnavailable("the sandbox is shutting down"))
        for task in (*self._keepers, *self._connections):
            task.cancel()
        if self._server is not None:
            self._server.close()
        removals = (asyncio.to_thread(self._launcher.remove, name) for name in names)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*removals, return_exceptions=True), STOP_SECONDS)
        await asyncio.to_thread(self._launcher.close)
        if self._directory.name:
            shutil.rmtree(self._directory, ignore_errors=True)

    @property
    def load(self) -> dict[str, int]:
        """Live sessions by interpreter, those only that can serve."""
        return {name: member.occupied for name, member in self._members.items() if member.ready.is_set()}

    async def acquire(self, timeout_s: float) -> Interpreter:
        """Take a place in the least occupied interpreter; first come, first served.

        Raises `SandboxBusy` when none became free in time, `SandboxUnavailable` when no interpreter is up at all.
        """
        if self._stopped:
            raise SandboxUnavailable("the sandbox has been shut down")
        free = None if self._waiting else self._least_occupied()
        if free is not None:
            free.occupied += 1
            return free
        waiting: asyncio.Future[Interpreter] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        try:
            return await asyncio.wait_for(waiting, timeout_s)
        except TimeoutError:
            if not self.load:
                raise SandboxUnavailable(f"no sandbox is up: {self.last_failure or 'starting'}") from None
            raise SandboxBusy(f"no free sandbox session within {timeout_s:g} s; in use: {self.load}") from None
        finally:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
            if waiting.cancelled() or not waiting.done():
                self._hand_out()

    def release(self, interpreter: Interpreter) -> None:
        """Give a place back."""
        interpreter.occupied -= 1
        self._hand_out()

    def _least_occupied(self) -> Interpreter | None:
        free = [member for member in self._members.values() if member.has_place]
        return min(free, key=lambda member: member.occupied, default=None)

    def _hand_out(self) -> None:
        while self._waiting and (free := self._least_occupied()) is not None:
            waiting = self._waiting.popleft()
            if not waiting.done():
                free.occupied += 1
                waiting.set_result(free)

    async def _keep_one(self) -> None:
        """Keep one interpreter alive; failures to start are repeated at growing intervals."""
        pause = _FIRST_PAUSE
        while not self._stopped:
            name = f"codedance-{os.getpid()}-{secrets.token_hex(4)}"
            member = Interpreter(name, self._config.sessions_per_container)
            self._members[name] = member
            try:
                await asyncio.to_thread(self._launcher.launch, name, self._directory)
                await self._until_ready(member)
                pause = _FIRST_PAUSE
                await member.dead.wait()
                self._note_failure(f"{name} has died")
            except Exception as error:  # whatever it was, the node must try again as long as it lives
                self._note_failure(str(error) or type(error).__name__)
                self._failures_to_start += 1
                if self._failures_to_start >= _FAILURES_TO_GIVE_UP * self._config.containers:
                    self._settled.set()
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            member.abandon()
            del self._members[name]
            self.restarts += 1
            await asyncio.to_thread(self._launcher.remove, name)

    async def _until_ready(self, member: Interpreter) -> None:
        """Wait for the zygote. Raises `SandboxUnavailable` when the interpreter dies before, or takes too long."""
        waits = [asyncio.create_task(event.wait()) for event in (member.ready, member.dead)]
        timeout_s = self._config.start_timeout_s
        try:
            await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if member.ready.is_set():
            return
        log = await asyncio.to_thread(self._launcher.failure_log, member.name)
        what = "has died" if member.dead.is_set() else f"was not ready in {timeout_s:g} s"
        raise SandboxUnavailable(f"{member.name} {what}{': ' + log if log else ''}")

    def _note_failure(self, reason: str) -> None:
        if not self._stopped:
            self.last_failure = reason
            _logger.warning("sandbox: %s; starting another interpreter", reason)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        peer = Peer(reader, writer)
        try:
            hello = await peer.hello(HELLO_SECONDS)
            await self._welcome(peer, hello)
        except (TimeoutError, EOFError, OSError, wire.WireError, ValueError) as error:
            _logger.warning("sandbox: a connection was refused: %s: %s", type(error).__name__, error)
            peer.close()
        except asyncio.CancelledError:  # by stop() only; asyncio would report it as a failure of the server
            peer.close()
        finally:
            self._connections.discard(task)

    async def _welcome(self, peer: Peer, hello: Message) -> None:
        """Check who connects and serve the connection for as long as it lasts, or hand it to who waits for it."""
        member = self._members.get(str(hello.get("name")))
        if hello.get("op") != "hello" or hello.get("version") != wire.VERSION or member is None:
            raise ValueError(f"no interpreter of this node, or not of protocol version {wire.VERSION}")
        if peer.uid != await asyncio.to_thread(self._launcher.root_uid, member.name):
            raise ValueError(f"uid {peer.uid} is not the interpreter's")
        match hello.get("role"):
            case "keeper":
                await member.serve_keeper(peer, hello)
            case "zygote":
                await member.serve_zygote(peer, self._zygote_is_ready)
            case "session" if member.admit(str(hello.get("session")), peer):
                return
            case _:
                peer.close()

    def _zygote_is_ready(self) -> None:
        self._settled.set()
        self._hand_out()
