"""Host side of the wire format: 4-byte big-endian length, then one msgpack map with string keys.

What arrives here was written by a container and is not trusted: lengths are checked before anything is read, and a
frame that is malformed ends the connection. The interpreter has its own reader (`codedance_interpreter.wire`), which
also encodes for both sides.
"""

from __future__ import annotations

import asyncio
import itertools
import resource
import socket
import struct
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import msgpack  # type: ignore[import-untyped]

from sandbox_image.codedance_interpreter.wire import (
    HEADER_BYTES,
    MAX_FRAME_BYTES,
    VERSION,
    Message,
    WireError,
    body_length,
    encode,
)

__all__ = ["MAX_FRAME_BYTES", "VERSION", "FrameReader", "Message", "Peer", "WireError", "decode", "encode", "listen"]

MAX_HELLO_BYTES = 4096  # a peer is not known before it: it gets no more memory than this
_INBOX_FRAMES = 4  # few, as each may have 64 MiB
_MAX_ENTRIES = 256
_MAX_CONTAINERS = 1000
_OPEN_FILES = 1 << 16


def decode(body: bytes) -> Message:
    """Turns the body of a frame back into a message; raises `WireError` on anything but a map with string keys.

    Lists and maps are bounded in length and number: as Python objects they take up to 64 times their size in a frame.
    """
    count = itertools.count(1)

    def counted(container: Any) -> Any:
        # Nested empty lists cost a byte each in a frame and 56 bytes or more in memory.
        if next(count) > _MAX_CONTAINERS:
            raise WireError("too many lists and maps")
        return container

    try:
        message = msgpack.unpackb(
            body,
            raw=False,
            strict_map_key=True,
            max_array_len=_MAX_ENTRIES,
            max_map_len=_MAX_ENTRIES,
            max_ext_len=0,
            list_hook=counted,
            object_hook=counted,
        )
    except Exception as error:  # msgpack raises a dozen unrelated types on malformed input
        raise WireError(f"not msgpack: {type(error).__name__}") from None
    if not isinstance(message, dict) or not all(isinstance(key, str) for key in message):
        raise WireError("a frame must hold a map with string keys")
    return message


_CONNECT_PAUSES = (0.05, 0.2, 0.5)
"""Seconds between attempts to connect."""


class FrameReader:
    """Buffer of an untrusted stream, which hands out one message at a time; `limit` bounds the next frame's body."""

    def __init__(self, limit: int = MAX_FRAME_BYTES) -> None:
        self.limit = limit
        self._data = bytearray()

    @property
    def begun(self) -> bool:
        """True once the header of the next frame has come."""
        return len(self._data) >= HEADER_BYTES

    def feed(self, data: bytes) -> None:
        self._data += data

    def take(self) -> Message | None:
        """Returns the next message, None while its frame is not whole. Raises `WireError` on malformed input."""
        if not self.begun:
            return None
        end = HEADER_BYTES + body_length(bytes(self._data[:HEADER_BYTES]), self.limit)
        if len(self._data) < end:
            return None
        body = bytes(memoryview(self._data)[HEADER_BYTES:end])
        del self._data[:end]
        return decode(body)


class Peer(asyncio.Protocol):
    """Connection whose other side is not trusted. Messages wait in a short inbox; when it is full, reading pauses.

    With `only_when_asked` every call of `receive` entitles the other side to one message. One that it sends unasked
    ends the connection before its body is read: so nothing piles up here, and no answer is there before its question.

    Args:
        connected: called once with the peer when the connection is made, before a byte is read.

    Attributes:
        uid: user id of the process at the other end, as the kernel vouches for it; -1 before there is a connection.
        fault: error of the other side for which the connection was ended.
        on_end: called once when the connection has ended, by either side.
    """

    def __init__(self, connected: Callable[[Peer], None] | None = None) -> None:
        self._connected = connected
        self._is_stranger = connected is not None
        self._transport: asyncio.Transport | None = None
        self._frames = FrameReader()
        self._inbox: deque[Message] = deque()
        self._room = _INBOX_FRAMES
        self._paused = False
        self._waiting: asyncio.Future[Message | None] | None = None
        self._asked = False
        self.fault: WireError | None = None
        self.on_end: Callable[[], Any] | None = None
        self.only_when_asked = False
        self.closed = False
        self.uid = -1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # That of uvloop, which Ray uses, is one in all but its base class.
        self._transport = cast(asyncio.Transport, transport)
        # Asked now: a socket that has been closed meanwhile has no credentials.
        self.uid = _peer_uid(transport)
        if self._connected is not None:
            # A stranger gets no more memory than one small frame takes, until `hello` has returned that.
            self._frames.limit, self._room = MAX_HELLO_BYTES, 1
            self._connected(self)

    def data_received(self, data: bytes) -> None:
        self._frames.feed(data)
        self._read_frames()

    def connection_lost(self, error: Exception | None) -> None:
        self._end()

    async def hello(self, timeout_s: float) -> Message:
        """Returns the first message, small and due at once; what follows it is read from here on.

        Raises `TimeoutError`, `WireError`, or `EOFError` when the connection ends instead.
        """
        message = await self.receive(timeout_s)
        if message is None:
            raise self.fault or EOFError("peer closed the connection")
        self.trust()
        return message

    def trust(self) -> None:
        """Reads long frames too from here on; `hello` does so when it returns."""
        if not self.closed:
            self._is_stranger = False
            self._frames.limit, self._room = MAX_FRAME_BYTES, _INBOX_FRAMES
            self._read_frames()

    def send(self, message: Mapping[str, Any]) -> None:
        """Queues a message for sending; a peer that has gone is noticed by `receive`, not here."""
        if not self.closed and self._transport is not None:
            self._transport.write(encode(message))

    async def receive(self, timeout_s: float | None = None) -> Message | None:
        """Returns the next message, or None once the connection has ended. Raises `TimeoutError` after `timeout_s`.

        One caller at a time.
        """
        self._asked = True
        self._read_frames()
        if self._inbox:
            message: Message = self._inbox.popleft()
            self._read_frames()  # there is room for one more
            return message
        if self.closed:
            return None
        loop = asyncio.get_running_loop()
        waiting: asyncio.Future[Message | None] = loop.create_future()
        self._waiting = waiting
        timer = None if timeout_s is None else loop.call_later(timeout_s, _time_out, waiting)
        try:
            return await waiting
        finally:
            self._waiting = None
            if timer is not None:
                timer.cancel()

    def close(self) -> None:
        self._room = 0  # nothing is read any more
        self._end()

    def _read_frames(self) -> None:
        """Hands out what has come, as far as there is room, and holds the sender up where there is none."""
        try:
            while len(self._inbox) < self._room:
                # Checked at the header: an unasked frame is not even read.
                if self.only_when_asked and not self._asked and self._frames.begun:
                    raise WireError("a message that nobody asked for")
                message = self._frames.take()
                if message is None:
                    break
                self._asked = False
                self._deliver(message)
        except WireError as error:
            self.fault = error
            self.close()
        self._hold_up(len(self._inbox) >= self._room)

    def _deliver(self, message: Message) -> None:
        if self._is_stranger:
            self._room = 0  # what follows is not read before `hello` has returned
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(message)
        else:
            self._inbox.append(message)

    def _hold_up(self, full: bool) -> None:
        if self._transport is None or self.closed or full == self._paused:
            return
        self._paused = full
        if full:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _end(self) -> None:
        self.closed = True
        if self._transport is not None:
            self._transport.close()
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)
        if self.on_end is not None:
            on_end, self.on_end = self.on_end, None
            on_end()


async def listen(path: Path, connected: Callable[[Peer], None], backlog: int = 100) -> asyncio.Server:
    """Listens on a unix socket; `connected` gets each peer as it connects, before a byte of it is read."""
    return await asyncio.get_running_loop().create_unix_server(lambda: Peer(connected), path, backlog=backlog)


async def connect(path: Path) -> Peer:
    """Connects to a unix socket, several times where too many connect at once. Raises `OSError`."""
    for pause in (*_CONNECT_PAUSES, None):
        try:
            _, peer = await asyncio.get_running_loop().create_unix_connection(Peer, str(path))
        except BlockingIOError:  # the backlog is full
            if pause is None:
                raise
        else:
            # asyncio takes a full backlog for a connection that is being made, which unix sockets do not have.
            if peer.uid >= 0 or pause is None:
                return peer
            peer.close()
        await asyncio.sleep(pause)
    raise AssertionError  # the last pass returns or raises


def allow_many_connections() -> None:
    """Raises this process's limit of open files as far as it may: a session takes one in a client, two in a node."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < min(hard, _OPEN_FILES):
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, _OPEN_FILES), hard))


def _time_out(waiting: asyncio.Future[Message | None]) -> None:
    if not waiting.done():
        waiting.set_exception(TimeoutError())


def _peer_uid(transport: asyncio.BaseTransport) -> int:
    credentials = transport.get_extra_info("socket").getsockopt(
        socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")
    )
    return int(struct.unpack("3i", credentials)[1])
