"""Sessions of one machine: opened in its interpreters, run under deadlines kept here, closed when forgotten."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from codedance_verl.sandbox.backend import choose_launcher
from codedance_verl.sandbox.config import SandboxConfig
from codedance_verl.sandbox.docker.launcher import Launcher
from codedance_verl.sandbox.docker.sizing import full, sized
from codedance_verl.sandbox.errors import (
    SandboxBusy,
    SandboxError,
    SandboxFull,
    SandboxInputError,
    SandboxUnavailable,
    UnknownSession,
)
from codedance_verl.sandbox.execution import ReplyError, execution_of, lost, rejected
from codedance_verl.sandbox.fleet import Fleet
from codedance_verl.sandbox.interpreter import Interpreter, SessionHandle, lacking
from codedance_verl.sandbox.wire import Message
from codedance_verl.types import Execution, ExecutionStatus

_logger = logging.getLogger(__name__)
_OPEN_ATTEMPTS = 3
_LONGEST_LEASE_CHECK = 30.0
_DRAIN_CHECK = 0.05  # seconds between looks at the open sessions
_LONG_TEXT_CHARS = 8_192
"""Length of stdout from which a reply is checked in a thread, since the loop serves other sessions meanwhile."""


@dataclass
class _Session:
    """A caller's session.

    `where` is None before it is open, and after its interpreter was lost until the next cell. `variables_lost`: its
    variables are gone and its next cell must report that instead of being run. `full_in`
    names interpreters that had no room for it.
    """

    session_id: str
    images: Sequence[bytes]
    where: tuple[Interpreter, SessionHandle] | None = None
    calls: int = 0
    variables_lost: bool = False
    full_in: set[str] = field(default_factory=set)
    queue_s: float = 0.0
    closed: bool = False
    used_at: float = field(default_factory=time.monotonic)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    opening: asyncio.Task[None] | None = None


class SandboxNode:
    """Owner of the interpreters of this machine. Create it and use it in one event loop, `start` before anything else.

    Calls of one session run one after another, sessions are independent of one another. Every method is bounded in
    time. `launcher` overrides what `config.backend` would choose. Without `decode_images` those that come back have no
    hashes, and callers must pass them through `returned_images.decoded`.
    """

    def __init__(self, config: SandboxConfig, launcher: Launcher | None = None, decode_images: bool = True) -> None:
        self.config = config = sized(config)
        self._launcher = launcher
        self._decode_images = decode_images
        self._fleet: Fleet | None = None
        self._draining = False
        self._sessions: dict[str, _Session] = {}
        self._slots = asyncio.Semaphore(config.cell_slots)
        # As many as cells: opening forks and decodes, which wants a core too.
        self._opens = asyncio.Semaphore(config.cell_slots)
        self._tasks: set[asyncio.Task[None]] = set()
        self._counts = {"opened": 0, "cells": 0, "refused": 0, "leases_expired": 0} | {
            str(status): 0 for status in ExecutionStatus
        }

    async def start(self) -> None:
        """Starts the interpreters. Raises `UserError` when the set-up lacks something, or `SandboxUnavailable`."""
        launcher = self._launcher
        if launcher is None:
            launcher = await asyncio.to_thread(choose_launcher, self.config)
        fleet = Fleet(self.config, launcher)
        await fleet.start()
        self._fleet = fleet
        self._spawn(self._end_stale_leases())

    async def drain(self, timeout_s: float) -> int:
        """Opens no more sessions and waits until the open ones are closed. Returns the number of those left."""
        self._draining = True
        deadline = time.monotonic() + timeout_s
        while self._sessions and time.monotonic() < deadline:
            await asyncio.sleep(_DRAIN_CHECK)
        return len(self._sessions)

    async def shutdown(self) -> None:
        """Ends all sessions and interpreters and removes their containers; harmless when called twice."""
        for session in list(self._sessions.values()):
            session.closed = True
        self._sessions.clear()
        for task in self._tasks:
            task.cancel()
        if self._fleet is not None:
            await self._fleet.stop()

    def stats(self) -> dict[str, Any]:
        """Returns counts since the start, by status too, and the number of sessions of each interpreter."""
        fleet = self._fleet
        return {
            **self._counts,
            "sessions": len(self._sessions),
            "capacity": self.config.containers * self.config.sessions_per_container,
            "interpreters": fleet.load if fleet else {},
            "standby_containers": fleet.standby_containers if fleet else 0,
            "waiting": fleet.waiting if fleet else 0,
            "restarts": fleet.restarts if fleet else 0,
            "recycled": fleet.recycled if fleet else 0,
            "memory_bytes": fleet.memory_bytes if fleet else 0,
            "last_failure": fleet.last_failure if fleet else "",
        }

    def count_orphans(self) -> int:
        """Returns the number of containers whose owner is dead; blocks, and raises what the engine's client does."""
        return 0 if self._fleet is None else self._fleet.count_orphans()

    async def open(self, images: Sequence[bytes] = (), session_id: str | None = None) -> str:
        """Opens a session and returns its id; `images` are encoded files for `input_images`.

        A caller who names the id itself can `close` it even when this call did not return to it. Raises `SandboxBusy`,
        `SandboxInputError` or `SandboxUnavailable`; `SandboxFull` for one.
        """
        if self._draining:
            raise SandboxUnavailable("the sandbox opens no more sessions: it is being shut down")
        session = _Session(session_id or secrets.token_hex(8), images)
        if session.session_id in self._sessions:
            raise SandboxError(f"session {session.session_id} is open already")
        self._sessions[session.session_id] = session
        session.opening = asyncio.create_task(self._place(session))
        try:
            await session.opening
        except BaseException:
            self._sessions.pop(session.session_id, None)
            session.opening.cancel()
            self._drop(session)  # it may have been opened at the very moment the caller gave up
            if session.closed:
                raise UnknownSession(f"session {session.session_id} was closed while it was opened") from None
            raise
        finally:
            session.opening = None
        self._counts["opened"] += 1
        return session.session_id

    async def run(self, session_id: str, code: str, timeout_s: float | None = None) -> Execution:
        """Runs one cell; `timeout_s` is its own run time, `config.cell_timeout_s` by default.

        What the code does never raises. Raises `SandboxBusy` or `SandboxUnavailable` when the cell could not be run;
        `SandboxFull` leaves the session as it was, and the same cell may be tried again. Raises
        `SandboxInputError` when the session's image breaks off, `UnknownSession` when the session was closed.
        """
        session = self._sessions.get(session_id)
        if session is None:
            raise UnknownSession(
                f"no session {session_id}: it was closed, or not used for {self.config.lease_ttl_s:g} s"
            )
        async with session.lock:
            session.used_at = time.monotonic()
            execution = await self._run(session, code, timeout_s or self.config.cell_timeout_s)
            session.used_at = time.monotonic()
        self._counts["cells"] += 1
        self._counts[execution.status] += 1
        return execution

    async def close(self, session_id: str) -> None:
        """Ends a session and all its processes; they are gone shortly after. Unknown ids are ignored."""
        session = self._sessions.pop(session_id, None)
        if session is None:
            return
        session.closed = True
        if session.opening is not None:
            session.opening.cancel()
        self._drop(session)

    async def _place(self, session: _Session) -> None:
        """Finds an interpreter with a free place and opens the session there; tries again when one dies under it.

        A death is no failed attempt: a restart of the engine takes all interpreters, one after the other.
        """
        assert self._fleet is not None, "start() comes first"
        config = self.config
        deadline = time.monotonic() + config.queue_timeout_s
        failed = 0
        while True:
            asked = time.monotonic()
            try:
                interpreter = await self._fleet.acquire(config.queue_timeout_s, session.full_in)
            except SandboxBusy:
                self._counts["refused"] += 1
                raise
            try:
                async with self._opens:  # a zygote opens one after another: waiting for it is no part of the opening
                    session.queue_s += time.monotonic() - asked
                    handle = await interpreter.open(secrets.token_hex(8), config, session.images)
                session.where = (interpreter, handle)
                return
            except (SandboxUnavailable, TimeoutError) as error:
                self._fleet.release(interpreter)
                failed += not interpreter.dead.is_set()
                if isinstance(error, SandboxFull):
                    session.full_in.add(interpreter.name)
                # Deaths are bounded by the deadline alone.
                if failed == _OPEN_ATTEMPTS or time.monotonic() > deadline:
                    if isinstance(error, SandboxFull):
                        raise
                    reason = str(error) or f"no answer within sandbox.open_timeout_s={config.open_timeout_s:g}"
                    raise SandboxUnavailable(f"a session could not be opened: {reason}") from None
            except BaseException:
                self._fleet.release(interpreter)
                raise

    async def _run(self, session: _Session, code: str, timeout_s: float) -> Execution:
        # Lone surrogates count as they would be encoded: the bound is on what is sent.
        size = len(code.encode("utf-8", "surrogatepass"))
        if size > self.config.max_code_bytes:
            return rejected(f"the code has {size} bytes, at most {self.config.max_code_bytes} are allowed")
        if session.where is not None and _is_gone(session.where):
            self._drop(session)
            # Before its first cell a session has no variables to lose, and is opened elsewhere unnoticed.
            session.variables_lost = session.calls > 0
        if session.variables_lost:
            session.variables_lost = False
            return lost(ExecutionStatus.KILLED)
        if session.where is None:
            await self._place(session)
            session.calls = 0
        async with self._slot(session):
            started = time.monotonic()
            execution = await self._run_cell(session, code, timeout_s)
            duration_s = time.monotonic() - started
        queue_s, session.queue_s = session.queue_s, 0.0
        return replace(execution, duration_s=duration_s, queue_s=queue_s)

    @contextlib.asynccontextmanager
    async def _slot(self, session: _Session) -> AsyncIterator[None]:
        """Holds one of the node's slots for running cells; the wait for it counts as queue time."""
        asked = time.monotonic()
        try:
            await asyncio.wait_for(self._slots.acquire(), self.config.queue_timeout_s)
        except TimeoutError:
            self._counts["refused"] += 1
            raise SandboxBusy(f"no cell slot became free within {self.config.queue_timeout_s:g} s") from None
        session.queue_s += time.monotonic() - asked
        try:
            yield
        finally:
            self._slots.release()

    async def _run_cell(self, session: _Session, code: str, timeout_s: float) -> Execution:
        """Sends the cell and waits for its result, at most `timeout_s` plus the grace for killing it."""
        if session.where is None:
            raise UnknownSession(f"session {session.session_id} was closed before its cell was run")
        interpreter, handle = session.where
        peer = handle.peer
        assert peer is not None
        session.calls += 1
        call = session.calls
        cancelled = False
        # A lone surrogate is no UTF-8, which is all that a frame can carry; as `?` it fails as Python, not as a frame.
        text = code.encode("utf-8", "replace").decode("utf-8")
        try:
            peer.send({"op": "run", "call": call, "code": text})
            try:
                reply = await peer.receive(timeout_s)
            except TimeoutError:
                cancelled = True
                # The supervisor interrupts the cell, then kills it: its last lines come back within the grace.
                peer.send({"op": "cancel", "call": call})
                reply = await peer.receive(self.config.kill_grace_s)
            if reply is None and cancelled:
                self._drop(session)
                return lost(ExecutionStatus.TIMEOUT)
            if reply is None:
                raise ReplyError("the session has ended")
            if lacks := lacking(reply):
                raise full(interpreter.name, lacks, self.config)
            if reply.get("op") == "bad_image":
                raise SandboxInputError(f"the session cannot use its input image: {str(reply.get('reason'))[:300]}")
            if reply.get("outcome") == "cancelled" and not cancelled:
                raise ReplyError("it says that it was stopped, and was not")
            return await self._execution(reply, call)
        except TimeoutError:  # not even the supervisor of the session answers
            self._drop(session)
            return lost(ExecutionStatus.TIMEOUT)
        except ReplyError as error:
            _logger.warning("sandbox: session %s is killed: %s", session.session_id, error)
            self._drop(session)
            return lost(ExecutionStatus.KILLED)
        except SandboxInputError:
            self._drop(session)
            raise
        except SandboxFull:
            self._leave_full(session)
            raise
        except BaseException:
            self._drop(session)  # the caller gave up: what is still running must not answer the next call
            session.variables_lost = True
            raise

    def _leave_full(self, session: _Session) -> None:
        """Moves a session that has run no cell elsewhere at its next call; one with variables stays with them."""
        session.calls -= 1  # the call is answered, and nothing was run
        if session.calls == 0 and session.where is not None:
            session.full_in.add(session.where[0].name)
            self._drop(session)

    async def _execution(self, reply: Message, call: int) -> Execution:
        decode = self._decode_images
        if (decode and reply.get("images")) or len(str(reply.get("stdout"))) > _LONG_TEXT_CHARS:
            return await asyncio.to_thread(execution_of, reply, call, self.config, decode)
        return execution_of(reply, call, self.config, decode)

    def _drop(self, session: _Session) -> None:
        """Kills what the session has running, in the background, and gives its place back when that is done."""
        if session.where is not None:
            where, session.where = session.where, None
            self._spawn(self._retire(*where))

    async def _retire(self, interpreter: Interpreter, handle: SessionHandle) -> None:
        try:
            await interpreter.kill(handle)
        finally:
            if self._fleet is not None:
                self._fleet.release(interpreter)

    async def _end_stale_leases(self) -> None:
        ttl_s = self.config.lease_ttl_s
        while True:
            await asyncio.sleep(min(ttl_s / 4, _LONGEST_LEASE_CHECK))
            now = time.monotonic()
            for session in list(self._sessions.values()):
                # A cell that runs, or waits for a slot, holds the lock and counts as use.
                if now - session.used_at > ttl_s and not session.lock.locked() and session.opening is None:
                    self._counts["leases_expired"] += 1
                    await self.close(session.session_id)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _is_gone(where: tuple[Interpreter, SessionHandle]) -> bool:
    interpreter, handle = where
    return interpreter.dead.is_set() or handle.peer is None or handle.peer.closed
