"""Host's handle on one interpreter: its two control connections and the sessions it serves."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from codedance_verl.sandbox.config import SandboxConfig
from codedance_verl.sandbox.docker import sizing
from codedance_verl.sandbox.errors import SandboxInputError, SandboxUnavailable
from codedance_verl.sandbox.image_store import digests_of
from codedance_verl.sandbox.shared_images import HeldImage, SharedImages
from codedance_verl.sandbox.wire import MAX_FRAME_BYTES, Message, Peer

KILL_CONFIRM_SECONDS = 3.0
MAX_INPUT_BYTES = MAX_FRAME_BYTES - 4096
"""Most bytes of the encoded images of one session together; each travels in one frame."""
_FIRST_UID, _UID_BLOCK, _UID_BLOCKS = 1 << 20, 1 << 20, 2000
_NARROW_FIRST_UID = 10_000  # above the system's users
_PONG: Message = {"op": "pong"}  # in place of an answer from a process that has gone


@dataclass
class SessionHandle:
    """Handle on a session: its connection, its user id, the leader of its process group, and its images of `shared`."""

    key: str
    uid: int
    peer: Peer | None = None
    leader: int = 0
    shared: SharedImages | None = None
    images: list[HeldImage] = field(default_factory=list)


@dataclass
class Interpreter:
    """A container init with its zygote.

    `ready` is set while sessions can be opened, `dead` once and for all. A standby is not `serving` yet; one that is
    `retired` keeps the sessions it has and gets no more. `opened` counts the sessions it ever had. `memory_bytes` is
    what container init and zygote hold themselves and for no session, as of the last `check`, and `first_memory_bytes`
    as of the first. `kept_bytes` bounds the images that no session uses.
    """

    name: str
    capacity: int
    kept_bytes: int = 0
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    dead: asyncio.Event = field(default_factory=asyncio.Event)
    retired: asyncio.Event = field(default_factory=asyncio.Event)
    vacant: asyncio.Event = field(default_factory=asyncio.Event)
    serving: bool = False
    occupied: int = 0
    opened: int = 0
    first_memory_bytes: int = 0
    memory_bytes: int = 0
    _init: Peer | None = None
    _zygote: Peer | None = None
    _images: SharedImages | None = None
    _uids: Iterator[int] = field(default_factory=lambda: iter(()))
    _expected: dict[str, asyncio.Future[Peer]] = field(default_factory=dict)
    _killing: dict[str, asyncio.Future[None]] = field(default_factory=dict)
    _pongs: dict[str, asyncio.Future[Message]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.vacant.set()

    @property
    def can_serve(self) -> bool:
        return self.ready.is_set() and not self.dead.is_set() and not self.retired.is_set()

    @property
    def has_place(self) -> bool:
        return self.serving and self.can_serve and self.occupied < self.capacity

    def occupy(self) -> None:
        """Takes one of its places."""
        self.occupied += 1
        self.opened += 1
        self.vacant.clear()

    def vacate(self) -> None:
        """Gives one of its places back."""
        self.occupied -= 1
        if self.occupied == 0:
            self.vacant.set()

    async def serve_init(self, peer: Peer, hello: Message) -> None:
        """Keeps the connection of the container init until it ends; the interpreter is dead then."""
        if self._init is not None or self.dead.is_set():
            return
        self._init = peer
        # The span is of the container's user namespace, which the host cannot know before.
        self._uids = _uid_sequence(_number(hello.get("uid_span")))
        while (message := await peer.receive()) is not None:
            if message.get("op") == "killed":
                waiting = self._killing.pop(str(message.get("session")), None)
                if waiting is not None and not waiting.done():
                    waiting.set_result(None)
            self._take_pong("init", message)
        self.abandon()

    async def serve_zygote(self, peer: Peer, ready: Callable[[], None]) -> None:
        """Keeps the zygote's connection until it ends; the container init then starts another, which connects again."""
        if self._zygote is not None:
            return
        self._zygote = peer
        self._images = images = SharedImages(peer.send, lambda: next(self._uids), self._end_decoder)
        self.ready.set()
        ready()
        while (message := await peer.receive()) is not None:
            if message.get("op") == "image":
                images.note(message, self.kept_bytes)
            if message.get("op") == "refused":
                self._refuse(str(message.get("session")), message)
            self._take_pong("zygote", message)
        self._zygote = None
        self.ready.clear()
        self._take_pong("zygote", _PONG)  # that it has gone is no news to wait for
        for key in list(self._expected):
            self._fail(key, "the zygote has died")

    def admit(self, key: str, peer: Peer) -> bool:
        """Hands the connection of a session to the caller who opens it; False when none waits for it."""
        waiting = self._expected.pop(key, None)
        if waiting is None or waiting.done():
            return False
        waiting.set_result(peer)
        return True

    async def open(self, key: str, config: SandboxConfig, images: Sequence[bytes]) -> SessionHandle:
        """Forks a session and loads its images.

        Raises `SandboxInputError`, `SandboxUnavailable` (`SandboxFull` for one) or `TimeoutError`.
        """
        if self._zygote is None:
            raise SandboxUnavailable(f"{self.name} has no zygote")
        if (size := sum(map(len, images))) > MAX_INPUT_BYTES:
            raise SandboxInputError(f"the input images have {size} bytes together, at most {MAX_INPUT_BYTES} are taken")
        handle = SessionHandle(key, next(self._uids))
        try:
            async with asyncio.timeout(config.open_timeout_s):
                return await self._open(handle, config, images, await digests_of(images))
        except BaseException:
            self._expected.pop(key, None)
            # It may have been forked meanwhile; a caller that is cancelled must not leave it behind.
            await asyncio.shield(self.kill(handle))
            raise

    async def check(self, timeout_s: float) -> None:
        """Asks init and zygote for a sign of life. Raises `TimeoutError` when either does not answer in time."""
        asked = {"init": self._init, "zygote": self._zygote}
        pongs = []
        for who, peer in asked.items():
            if peer is not None:
                self._pongs[who] = asyncio.get_running_loop().create_future()
                pongs.append(self._pongs[who])
                peer.send({"op": "ping"})
        try:
            async with asyncio.timeout(timeout_s):
                answers = await asyncio.gather(*pongs)
        finally:
            self._pongs.clear()
        held = [int(answer.get("memory_bytes", 0)) for answer in answers]
        # Of both or of none: one alone would look as if the interpreter had shrunk.
        if len(held) == 2 and all(held):
            self.memory_bytes = sum(held) - (self._images.decoded_bytes if self._images is not None else 0)
            self.first_memory_bytes = self.first_memory_bytes or self.memory_bytes

    def _take_pong(self, who: str, message: Message) -> None:
        waiting = self._pongs.pop(who, None) if message.get("op") == "pong" else None
        if waiting is not None and not waiting.done():
            waiting.set_result(message)

    async def _open(
        self, handle: SessionHandle, config: SandboxConfig, images: Sequence[bytes], digests: Sequence[bytes]
    ) -> SessionHandle:
        if self._zygote is None or self._images is None:
            raise SandboxUnavailable(f"{self.name} has no zygote")
        waiting: asyncio.Future[Peer] = asyncio.get_running_loop().create_future()
        # Registered before the request: the session's connection may be there first.
        self._expected[handle.key] = waiting
        limits = config.session_limits()
        handle.shared, handle.images = self._images, self._images.take(images, digests, limits)
        request = {"op": "open", "session": handle.key, "uid": handle.uid, "limits": limits}
        keys = [image.key for image in handle.images]
        self._zygote.send(request | {"images": keys, "on_error": config.on_error})
        try:
            handle.peer = await waiting
        except _Refused as refused:
            raise sizing.full(self.name, refused.lacks, config) from None
        reply = await handle.peer.receive()
        if reply is not None and reply.get("op") == "ready":
            handle.leader = int(reply.get("leader", 0))
            handle.peer.only_when_asked = True  # from here on it may run anybody's code
            return handle
        if reply is not None and (lacks := lacking(reply)):
            raise sizing.full(self.name, lacks, config)
        reason = "it ended at once" if reply is None else str(reply.get("reason"))[:300]
        if reply is not None and images:
            raise SandboxInputError(f"the session cannot use its input image: {reason}")
        raise SandboxUnavailable(f"a session on {self.name} did not start: {reason}")

    async def kill(self, handle: SessionHandle) -> None:
        """Kills all processes of a session and waits, bounded, until they are gone."""
        try:
            await self._kill(handle)
        finally:
            if handle.shared is not None:
                handle.shared.give_back(handle.images, self.kept_bytes)
                handle.shared = None
            # Only now: a supervisor that finds the connection closed would tidy up what is being killed.
            if handle.peer is not None:
                handle.peer.close()

    def _end_decoder(self, image: HeldImage) -> None:
        if self._init is not None and not self.dead.is_set():
            self._init.send({"op": "kill", "session": "", "uid": image.uid, "leader": 0})

    async def _kill(self, handle: SessionHandle) -> None:
        if self._init is None or self.dead.is_set():
            return
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._killing[handle.key] = waiting
        self._init.send({"op": "kill", "session": handle.key, "uid": handle.uid, "leader": handle.leader})
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(waiting, KILL_CONFIRM_SECONDS)
        finally:
            self._killing.pop(handle.key, None)

    def abandon(self) -> None:
        """Closes everything: the interpreter is given up, or has gone."""
        self.ready.clear()
        self.dead.set()
        for peer in (self._init, self._zygote):
            if peer is not None:
                peer.close()
        for key in list(self._expected):
            self._fail(key, f"{self.name} has died")
        for waiting in self._killing.values():
            if not waiting.done():
                waiting.set_result(None)
        for who in list(self._pongs):
            self._take_pong(who, _PONG)

    def _refuse(self, key: str, message: Message) -> None:
        lacks, reason = lacking(message), str(message.get("reason"))[:300]
        self._fail(key, reason, _Refused(lacks) if lacks else None)

    def _fail(self, key: str, reason: str, error: Exception | None = None) -> None:
        waiting = self._expected.pop(key, None)
        if waiting is not None and not waiting.done():
            waiting.set_exception(error or SandboxUnavailable(reason))


class _Refused(Exception):
    """The zygote cannot fork a session because the container lacks something."""

    def __init__(self, lacks: str) -> None:
        super().__init__(lacks)
        self.lacks = lacks


def lacking(message: Message) -> str:
    """Returns what a container says that it lacks, if it is one of `sizing.LACKS`; else an empty string."""
    lacks = message.get("lacks")
    return lacks if isinstance(lacks, str) and lacks in sizing.LACKS else ""


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def _uid_sequence(span: int) -> Iterator[int]:
    """Returns user ids for the sessions of one interpreter; `span` is the largest it may give away plus one.

    They come in steps of two: the id behind each is that of its supervisor and of the process that kills it.

    The kernel counts processes by user id over all containers. So each interpreter takes a random block of its own
    where there is room, else at least a random place to begin.
    """
    if span >= _FIRST_UID + _UID_BLOCK * _UID_BLOCKS:
        return itertools.count(_FIRST_UID + _UID_BLOCK * random.SystemRandom().randrange(_UID_BLOCKS), 2)
    uids = range(_NARROW_FIRST_UID, max(span - 1, _NARROW_FIRST_UID + 1), 2)
    first = random.SystemRandom().randrange(len(uids))
    return itertools.cycle((*uids[first:], *uids[:first]))
