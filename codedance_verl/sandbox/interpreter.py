"""The host's handle on one interpreter: its two control connections and the sessions it serves."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from codedance_verl.sandbox.errors import SandboxInputError, SandboxUnavailable
from codedance_verl.sandbox.wire import Message, Peer

KILL_CONFIRM_SECONDS = 3.0
_FIRST_UID, _UID_BLOCK, _UID_BLOCKS = 1 << 20, 1 << 20, 2000
_NARROW_FIRST_UID = 10_000


@dataclass
class Place:
    """A session as an interpreter serves it: the connection, the user id, and the leader of its process group."""

    key: str
    uid: int
    peer: Peer | None = None
    leader: int = 0


@dataclass
class Interpreter:
    """One keeper with its zygote. `ready` is set while sessions can be opened, `dead` once and for all."""

    name: str
    capacity: int
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    dead: asyncio.Event = field(default_factory=asyncio.Event)
    occupied: int = 0
    _keeper: Peer | None = None
    _zygote: Peer | None = None
    _uids: Iterator[int] = field(default_factory=lambda: iter(()))
    _expected: dict[str, asyncio.Future[Peer]] = field(default_factory=dict)
    _killing: dict[str, asyncio.Future[None]] = field(default_factory=dict)

    @property
    def has_place(self) -> bool:
        return self.ready.is_set() and not self.dead.is_set() and self.occupied < self.capacity

    async def serve_keeper(self, peer: Peer, hello: Message) -> None:
        """Keep the keeper's connection until it ends; the interpreter is dead then."""
        if self._keeper is not None or self.dead.is_set():
            return
        self._keeper = peer
        self._uids = _uid_sequence(int(hello.get("uid_span", 0)))
        while (message := await peer.receive()) is not None:
            if message.get("op") == "killed":
                waiting = self._killing.pop(str(message.get("session")), None)
                if waiting is not None and not waiting.done():
                    waiting.set_result(None)
        self.abandon()

    async def serve_zygote(self, peer: Peer, ready: Callable[[], None]) -> None:
        """Keep the zygote's connection until it ends; the keeper starts another one, which connects anew."""
        if self._zygote is not None:
            return
        self._zygote = peer
        self.ready.set()
        ready()
        while (message := await peer.receive()) is not None:
            if message.get("op") == "refused":
                self._fail(str(message.get("session")), str(message.get("reason"))[:300])
        self._zygote = None
        self.ready.clear()
        for key in list(self._expected):
            self._fail(key, "the zygote has died")

    def admit(self, key: str, peer: Peer) -> bool:
        """Hand the connection of a session to whoever opens it; False when nobody waits for it."""
        waiting = self._expected.pop(key, None)
        if waiting is None or waiting.done():
            return False
        waiting.set_result(peer)
        return True

    async def open(self, key: str, limits: dict[str, int], image: bytes | None, timeout_s: float) -> Place:
        """Fork a session and load its image. Raises `SandboxInputError`, `SandboxUnavailable` or `TimeoutError`."""
        if self._zygote is None:
            raise SandboxUnavailable(f"{self.name} has no zygote")
        place = Place(key, next(self._uids))
        try:
            async with asyncio.timeout(timeout_s):
                return await self._open(place, limits, image)
        except BaseException:
            self._expected.pop(key, None)
            await asyncio.shield(self.kill(place))
            raise

    async def _open(self, place: Place, limits: dict[str, int], image: bytes | None) -> Place:
        assert self._zygote is not None
        waiting: asyncio.Future[Peer] = asyncio.get_running_loop().create_future()
        self._expected[place.key] = waiting
        self._zygote.send({"op": "open", "session": place.key, "uid": place.uid, "limits": limits})
        place.peer = await waiting
        place.peer.send({"op": "input", "image": image})
        reply = await place.peer.receive()
        if reply is not None and reply.get("op") == "ready":
            place.leader = int(reply.get("leader", 0))
            return place
        reason = "it ended at once" if reply is None else str(reply.get("reason"))[:300]
        if reply is not None and image is not None:
            raise SandboxInputError(f"the session cannot use its input image: {reason}")
        raise SandboxUnavailable(f"a session on {self.name} did not start: {reason}")

    async def kill(self, place: Place) -> None:
        """Kill all processes of a session and wait, bounded, until they are gone."""
        if place.peer is not None:
            place.peer.close()
        if self._keeper is None or self.dead.is_set():
            return
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._killing[place.key] = waiting
        self._keeper.send({"op": "kill", "session": place.key, "uid": place.uid, "leader": place.leader})
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(waiting, KILL_CONFIRM_SECONDS)
        self._killing.pop(place.key, None)

    def abandon(self) -> None:
        """Close everything: the interpreter is given up, or has gone."""
        self.ready.clear()
        self.dead.set()
        for peer in (self._keeper, self._zygote):
            if peer is not None:
                peer.close()
        for key in list(self._expected):
            self._fail(key, f"{self.name} has died")
        for waiting in self._killing.values():
            if not waiting.done():
                waiting.set_result(None)

    def _fail(self, key: str, reason: str) -> None:
        waiting = self._expected.pop(key, None)
        if waiting is not None and not waiting.done():
            waiting.set_exception(SandboxUnavailable(reason))


def _uid_sequence(span: int) -> Iterator[int]:
    """User ids for the sessions of one interpreter, where `span` is the largest it may give away plus one.

    A random block of its own where there is room, because the kernel counts processes by user id over all containers.
    """
    if span >= _FIRST_UID + _UID_BLOCK * _UID_BLOCKS:
        return itertools.count(_FIRST_UID + _UID_BLOCK * random.SystemRandom().randrange(_UID_BLOCKS))
    return itertools.cycle(range(_NARROW_FIRST_UID, max(span, _NARROW_FIRST_UID + 1)))
