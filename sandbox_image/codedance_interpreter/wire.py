"""Frames between interpreter and host: a 4-byte big-endian length, then one msgpack map with string keys.

Both directions are bounded by `MAX_FRAME_BYTES`; anything else on the stream is a `WireError`, after which the
connection cannot be used any more. The host encodes with this module, and has a reader of its own
(`codedance_verl.sandbox.wire`).
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping
from typing import Any

import msgpack  # type: ignore[import-untyped]

VERSION = 3
MAX_FRAME_BYTES = 64 * 1024 * 1024
HEADER_BYTES = 4

Message = dict[str, Any]


class WireError(Exception):
    """The peer sent something that is no frame: too long, not msgpack, or not a map with string keys."""


def encode(message: Mapping[str, Any]) -> bytes:
    """Frames one message. Raises `WireError` when it is longer than `MAX_FRAME_BYTES`."""
    body: bytes = msgpack.packb(dict(message), use_bin_type=True)
    if len(body) > MAX_FRAME_BYTES:
        raise WireError(f"frame of {len(body)} bytes, at most {MAX_FRAME_BYTES} allowed")
    return struct.pack(">I", len(body)) + body


def decode(body: bytes) -> Message:
    """Turns the body of a frame back into a message."""
    try:
        message = msgpack.unpackb(body, raw=False, strict_map_key=True)
    except Exception as error:  # msgpack raises a dozen unrelated types on malformed input
        raise WireError(f"not msgpack: {type(error).__name__}") from None
    if not isinstance(message, dict) or not all(isinstance(key, str) for key in message):
        raise WireError("a frame must hold a map with string keys")
    return message


def body_length(header: bytes, limit: int = MAX_FRAME_BYTES) -> int:
    """Returns the length announced by a frame's header, checked against `limit` before anything is allocated."""
    length: int = struct.unpack(">I", header)[0]
    if length > limit:
        raise WireError(f"frame of {length} bytes announced, at most {limit} allowed")
    return length


def send(peer: socket.socket, message: Mapping[str, Any]) -> None:
    peer.sendall(encode(message))


def receive(peer: socket.socket) -> Message:
    """Blocks until one whole frame has come. Raises `EOFError` when the peer has gone."""
    header = _receive_exactly(peer, HEADER_BYTES)
    return decode(_receive_exactly(peer, body_length(header)))


def _receive_exactly(peer: socket.socket, count: int) -> bytes:
    data = bytearray()
    # In pieces: a length that was announced is not allocated before the bytes come.
    while len(data) < count:
        chunk = peer.recv(min(count - len(data), 1 << 20))
        if not chunk:
            raise EOFError("peer closed the connection")
        data += chunk
    return bytes(data)


class FrameBuffer:
    """Buffer of an untrusted stream, which hands out whole frames and never blocks."""

    def __init__(self, limit: int = MAX_FRAME_BYTES) -> None:
        self._limit = limit
        self._data = bytearray()

    def feed(self, chunk: bytes) -> list[Message]:
        """Adds `chunk`; returns the messages it completed. Raises `WireError` on malformed input."""
        self._data += chunk
        messages: list[Message] = []
        while len(self._data) >= HEADER_BYTES:
            end = HEADER_BYTES + body_length(bytes(self._data[:HEADER_BYTES]), self._limit)
            # The rest of the frame has not come yet.
            if len(self._data) < end:
                break
            messages.append(decode(bytes(self._data[HEADER_BYTES:end])))
            del self._data[:end]
        return messages
