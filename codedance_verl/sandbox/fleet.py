"""Interpreters of one node: their start, the replacement of those that die or have grown old, and places in them.

Behind the `containers` that serve, standby ones are kept started and empty. One of them takes over at once when a
serving interpreter is lost or retired, while its successor is started.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import shutil
from collections import deque
from collections.abc import Collection, Coroutine, Sequence
from pathlib import Path
from typing import Any

from codedance_verl.sandbox import wire
from codedance_verl.sandbox.config import MIB, SandboxConfig
from codedance_verl.sandbox.docker import reaper
from codedance_verl.sandbox.docker.launcher import SOCKET_NAME, Launcher
from codedance_verl.sandbox.errors import SandboxBusy, SandboxUnavailable
from codedance_verl.sandbox.interpreter import Interpreter
from codedance_verl.sandbox.wire import Message, Peer

HELLO_SECONDS = 5.0
STOP_SECONDS = 20.0
_BACKLOG = 1024
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 2.0
_PRIVATE = 0o600
_MISSED_CHECKS_TO_GIVE_UP = 2  # one may be missed under load
_FAILURES_TO_GIVE_UP = 3  # starts for each container that may fail before `start` does
_logger = logging.getLogger(__name__)


class Fleet:
    """Interpreters of a node, those that serve and the standby ones behind them, all in one event loop."""

    def __init__(self, config: SandboxConfig, launcher: Launcher) -> None:
        self._config = config
        self._launcher = launcher
        self._members: dict[str, Interpreter] = {}
        self._waiting: deque[asyncio.Future[Interpreter]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections: set[asyncio.Task[None]] = set()
        self._trusted_uids: set[int] = set()
        self._server: asyncio.Server | None = None
        self._directory = Path()
        self._start_decided = asyncio.Event()  # the first interpreter is ready, or too many have failed to start
        self._failures_to_start = 0
        self._stopped = False
        self.last_failure = ""
        self.restarts = 0
        self.recycled = 0

    async def start(self) -> None:
        """Starts all interpreters, waits for the first that can serve. Raises `UserError` or `SandboxUnavailable`."""
        await asyncio.to_thread(reaper.remove_dead_directories)
        await asyncio.to_thread(self._launcher.prepare)
        self._directory = reaper.owned_directory()
        # The container's root is another user here: it must pass this directory to reach the socket.
        if self._launcher.socket_mode != _PRIVATE:
            self._directory.chmod(0o755)
        socket_path = self._directory / SOCKET_NAME
        self._server = await wire.listen(socket_path, self._connected, _BACKLOG)
        socket_path.chmod(self._launcher.socket_mode)
        for _ in range(self._config.containers + self._config.standby_containers):
            self._spawn(self._keep_one())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._start_decided.wait(), self._config.start_timeout_s)
        if not self.load:
            reason = self.last_failure or f"no interpreter was ready in {self._config.start_timeout_s:g} s"
            await self.stop()
            raise SandboxUnavailable(f"no sandbox came up: {reason}")

    async def stop(self) -> None:
        """Ends all interpreters and removes what they ran in."""
        self._stopped = True
        names = list(self._members)
        for member in list(self._members.values()):
            member.abandon()
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_exception(SandboxUnavailable("the sandbox is shutting down"))
        for task in (*self._tasks, *self._connections):
            task.cancel()
        if self._server is not None:
            self._server.close()
        # All at once and bounded: an engine that hangs must not hold up the end of a run.
        removals = (asyncio.to_thread(self._launcher.remove, name) for name in names)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*removals, return_exceptions=True), STOP_SECONDS)
        await asyncio.to_thread(self._launcher.close)
        if self._directory.name:
            shutil.rmtree(self._directory, ignore_errors=True)

    @property
    def load(self) -> dict[str, int]:
        """Live sessions by interpreter, those only that serve."""
        return {
            member.name: member.occupied for member in self._members.values() if member.serving and member.can_serve
        }

    @property
    def standby_containers(self) -> int:
        """Number of interpreters that are ready to take over."""
        return sum(member.can_serve and not member.serving for member in self._members.values())

    @property
    def waiting(self) -> int:
        """Number of callers that wait for a place."""
        return len(self._waiting)

    @property
    def memory_bytes(self) -> int:
        """Memory of the interpreters themselves, without their sessions."""
        return sum(member.memory_bytes for member in self._members.values())

    def count_orphans(self) -> int:
        """See `Launcher.count_orphans`."""
        return self._launcher.count_orphans()

    async def acquire(self, timeout_s: float, avoid: Collection[str] = ()) -> Interpreter:
        """Takes a place in the least occupied interpreter; first come, first served. Those named by `avoid` come last.

        Raises `SandboxBusy` when none became free in time or too many wait already, `SandboxUnavailable` when no
        interpreter is up at all.
        """
        if self._stopped:
            raise SandboxUnavailable("the sandbox has been shut down")
        # Callers that wait already come first.
        free = None if self._waiting else self._least_occupied(avoid)
        if free is not None:
            free.occupy()
            return free
        if len(self._waiting) >= self._config.queue_length:
            raise SandboxBusy(f"{len(self._waiting)} callers wait for a sandbox session, as many as may")
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
                self._hand_out()  # those behind this caller may be served now

    def release(self, interpreter: Interpreter) -> None:
        """Gives a place back."""
        interpreter.vacate()
        self._retire_if_old(interpreter)
        self._balance()  # a standby that stepped in, and was in use when the lost one came back, can step back now

    def _least_occupied(self, avoid: Collection[str] = ()) -> Interpreter | None:
        free = [member for member in self._members.values() if member.has_place]
        return min(free, key=lambda member: (member.name in avoid, member.occupied), default=None)

    def _hand_out(self) -> None:
        while self._waiting and (free := self._least_occupied()) is not None:
            waiting = self._waiting.popleft()
            if not waiting.done():
                free.occupy()
                waiting.set_result(free)

    def _balance(self) -> None:
        """Makes `containers` interpreters serve: standby ones step in, and back when the lost one is up again."""
        able = [member for member in self._members.values() if member.can_serve]
        serving = [member for member in able if member.serving]
        missing = self._config.containers - len(serving)
        for standby in [member for member in able if not member.serving][: max(missing, 0)]:
            standby.serving = True
        # Only empty ones step back: a session cannot be moved.
        for empty in [member for member in serving if member.occupied == 0][: max(-missing, 0)]:
            empty.serving = False
        self._hand_out()

    async def _keep_one(self) -> None:
        """Keeps one interpreter alive; failures to start are repeated at growing intervals."""
        pause = _FIRST_PAUSE
        while not self._stopped:
            name = f"codedance-{os.getpid()}-{secrets.token_hex(4)}"
            member = Interpreter(name, self._config.sessions_per_container, self._config.kept_images_mb * MIB)
            self._members[name] = member
            try:
                await asyncio.to_thread(self._launcher.launch, name, self._directory)
                await self._until_ready(member)
                pause = _FIRST_PAUSE
                await self._watch(member)
                if member.retired.is_set():
                    # The successor starts while the old one still serves its sessions.
                    self._spawn(self._see_off(member))
                    continue
                self._note_failure(f"{name} has died")
            except Exception as error:  # whatever it was, the node must try again as long as it lives
                self._note_failure(str(error) or type(error).__name__)
                self._failures_to_start += 1
                if self._failures_to_start >= _FAILURES_TO_GIVE_UP * self._config.containers:
                    self._start_decided.set()
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            self.restarts += 1
            self._spawn(self._remove(member))

    async def _watch(self, member: Interpreter) -> None:
        """Returns when the interpreter is dead or retired; one that gives no sign of life is given up."""
        missed = 0
        while not await _any_of((member.dead, member.retired), self._config.health_interval_s):
            try:
                await member.check(self._config.health_interval_s)
                missed = 0
            except TimeoutError:
                missed += 1
                if missed == _MISSED_CHECKS_TO_GIVE_UP:
                    self._note_failure(f"{member.name} gives no sign of life")
                    member.abandon()
            self._retire_if_old(member)

    def _retire_if_old(self, member: Interpreter) -> None:
        """Retires an interpreter that has had its share of sessions, or whose own memory has grown."""
        if member.retired.is_set() or member.dead.is_set():
            return
        sessions, growth_mb = self._config.recycle_sessions, self._config.recycle_growth_mb
        grown = (member.memory_bytes - member.first_memory_bytes) / MIB
        if (sessions and member.opened >= sessions) or (growth_mb and grown >= growth_mb):
            member.retired.set()
            self._balance()

    async def _see_off(self, member: Interpreter) -> None:
        """Removes a retired interpreter once its last session has ended."""
        self.recycled += 1
        await _any_of((member.dead, member.vacant))
        await self._remove(member)

    async def _remove(self, member: Interpreter) -> None:
        member.abandon()
        self._members.pop(member.name, None)
        self._balance()
        await asyncio.to_thread(self._launcher.remove, member.name)

    async def _until_ready(self, member: Interpreter) -> None:
        """Waits for the zygote. Raises `SandboxUnavailable` when the interpreter dies before, or takes too long."""
        timeout_s = self._config.start_timeout_s
        await _any_of((member.ready, member.dead), timeout_s)
        if member.ready.is_set():
            return
        log = await asyncio.to_thread(self._launcher.failure_log, member.name)
        what = "has died" if member.dead.is_set() else f"was not ready in {timeout_s:g} s"
        raise SandboxUnavailable(f"{member.name} {what}{': ' + log if log else ''}")

    def _note_failure(self, reason: str) -> None:
        if not self._stopped:
            self.last_failure = reason
            _logger.warning("sandbox: %s; starting another interpreter", reason)

    def _connected(self, peer: Peer) -> None:
        if self._trusted_uids and peer.uid not in self._trusted_uids:  # a session: it may not even hold a connection
            peer.close()
            return
        task = asyncio.create_task(self._accept(peer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _accept(self, peer: Peer) -> None:
        try:
            hello = await peer.hello(HELLO_SECONDS)
            await self._welcome(peer, hello)
        except (TimeoutError, EOFError, OSError, wire.WireError, ValueError) as error:
            _logger.warning("sandbox: a connection was refused: %s: %s", type(error).__name__, error)
            peer.close()
        except asyncio.CancelledError:  # by stop() only
            peer.close()

    async def _welcome(self, peer: Peer, hello: Message) -> None:
        """Checks the peer, then serves its connection until it ends; a session's goes to the caller who opens it."""
        member = self._members.get(str(hello.get("name")))
        if hello.get("op") != "hello" or hello.get("version") != wire.VERSION or member is None:
            raise ValueError(f"no interpreter of this node, or not of protocol version {wire.VERSION}")
        # Asked once: the connection may end meanwhile, with an answer in it that is still to be read.
        uid = peer.uid
        # In a thread, since this may ask the engine.
        if uid != await asyncio.to_thread(self._launcher.root_uid, member.name):
            raise ValueError(f"uid {uid} is not the interpreter's")
        # All containers have the same root, so later connections can be judged before a byte is read.
        self._trusted_uids.add(uid)
        match hello.get("role"):
            case "init":
                await member.serve_init(peer, hello)
                self._balance()
            case "zygote":
                await member.serve_zygote(peer, self._zygote_is_ready)
                self._balance()
            case "session" if member.admit(str(hello.get("session")), peer):
                return
        peer.close()

    def _zygote_is_ready(self) -> None:
        self._balance()
        self._start_decided.set()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _any_of(events: Sequence[asyncio.Event], timeout_s: float | None = None) -> bool:
    """Waits until one of the events is set; False when none is after `timeout_s`."""
    waits = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
    return any(event.is_set() for event in events)
