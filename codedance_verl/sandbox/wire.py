"""Host side of the wire format: 4-byte big-endian length, then one msgpack map with string keys.

What arrives here was written by a container and is not trusted: lengths are checked before anything is read, and a
frame that is malformed ends the connection. The interpreter has its own reader (`codedance_interpreter.wire`), which
also encodes for both sides.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import struct
from collections.abc import Mapping
from typing import Any

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

__all__ = ["MAX_FRAME_BYTES", "VERSION", "Message", "Peer", "WireError", "decode", "encode", "read_message"]

MAX_HELLO_BYTES = 4096  # a peer is not known before it: it gets no more memory than this
_INBOX_FRAMES = 4  # few, as each may have 64 MiB
_MAX_ENTRIES = 256
_MAX_CONTAINERS = 1000


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


async def read_message(reader: asyncio.StreamReader, limit: int = MAX_FRAME_BYTES) -> Message:
    """Returns the next message. Raises `EOFError` at the end of the stream, also amid a frame, else `WireError`."""
    return await _read_body(reader, await _read_exactly(reader, HEADER_BYTES), limit)


async def _read_body(reader: asyncio.StreamReader, header: bytes, limit: int) -> Message:
    return decode(await _read_exactly(reader, body_length(header, limit)))


async def _read_exactly(reader: asyncio.StreamReader, count: int) -> bytes:
    try:
        return await reader.readexactly(count)
    except (asyncio.IncompleteReadError, ConnectionError):
        raise EOFError("peer closed the connection") from None


class Peer:
    """Connection from an interpreter. Messages wait in a short inbox; when it is full the sender is held up.

    With `only_when_asked` every call of `receive` entitles the other side to one message. One that it sends unasked
    ends the connection before it is read: so nothing piles up here, and no answer can be there before its question.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._inbox: asyncio.Queue[Message | None] = asyncio.Queue(_INBOX_FRAMES)
        self._pump: asyncio.Task[None] | None = None
        self._asked = False
        self.only_when_asked = False
        self.closed = False

    @property
    def uid(self) -> int:
        """User id of the process that opened the connection, as the kernel vouches for it."""
        credentials = self._writer.get_extra_info("socket").getsockopt(
            socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")
        )
        return int(struct.unpack("3i", credentials)[1])

    async def hello(self, timeout_s: float) -> Message:
        """Returns the first message, small and due at once; reading in the background starts after it."""
        message = await asyncio.wait_for(read_message(self._reader, MAX_HELLO_BYTES), timeout_s)
        self._pump = asyncio.create_task(self._read())
        return message

    def send(self, message: Mapping[str, Any]) -> None:
        """Queues a message for sending; a peer that has gone is noticed by `receive`, not here."""
        if not self.closed:
            self._writer.write(encode(message))

    async def receive(self, timeout_s: float | None = None) -> Message | None:
        """Returns the next message, or None once the connection has ended. Raises `TimeoutError` after `timeout_s`."""
        self._asked = True
        message = await asyncio.wait_for(self._inbox.get(), timeout_s)
        if message is None:
            self._inbox.put_nowait(None)  # the end stays visible to a caller that asks again
        return message

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        if self._pump is not None:
            self._pump.cancel()
        with contextlib.suppress(OSError, RuntimeError):
            self._writer.close()

    async def _read(self) -> None:
        try:
            while True:
                header = await _read_exactly(self._reader, HEADER_BYTES)
                # Checked at the header: an unasked frame is not even read.
                if self.only_when_asked and not self._asked:
                    raise WireError("a message that nobody asked for")
                self._asked = False
                await self._inbox.put(await _read_body(self._reader, header, MAX_FRAME_BYTES))
        except (EOFError, WireError, OSError):
            pass
        finally:
            self.closed = True
            with contextlib.suppress(OSError, RuntimeError):
                self._writer.close()
            while self._inbox.full():
                self._inbox.get_nowait()  # what came before the end of a broken connection is of no use any more
            self._inbox.put_nowait(None)
