"""Both readers of the wire format, fed by the other side's writer and by anything else."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codedance_verl.sandbox import wire as host_wire
from sandbox_image.codedance_interpreter import wire as inner_wire

MESSAGE = {"op": "result", "call": 3, "stdout": "é\n", "images": [{"png": b"\x89PNG\x00", "width": 2}], "error": None}

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.binary() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
messages = st.dictionaries(st.text(), values, max_size=5)


def read_as_host(stream: bytes, limit: int = host_wire.MAX_FRAME_BYTES) -> list[dict[str, Any]]:
    """All whole messages of a stream, or the exception that ended it."""
    reader = host_wire.FrameReader(limit)
    reader.feed(stream)
    found = []
    while (message := reader.take()) is not None:
        found.append(message)
    return found


def read_as_interpreter(stream: bytes) -> dict[str, Any]:
    mine, its = socket.socketpair()
    with mine, its:
        its.sendall(stream)
        its.shutdown(socket.SHUT_WR)
        return inner_wire.receive(mine)


def test_the_two_sides_speak_the_same_version() -> None:
    assert host_wire.VERSION == inner_wire.VERSION
    assert host_wire.MAX_FRAME_BYTES == inner_wire.MAX_FRAME_BYTES


@given(messages)
@settings(max_examples=50, deadline=None)
def test_what_one_side_writes_the_other_reads(message: dict[str, Any]) -> None:
    assert read_as_interpreter(host_wire.encode(message)) == message
    assert read_as_host(inner_wire.encode(message)) == [message]


@pytest.mark.parametrize("cut", range(len(inner_wire.encode(MESSAGE))))
def test_a_stream_that_ends_amid_a_frame_ends_without_a_message(cut: int) -> None:
    stream = inner_wire.encode(MESSAGE)[:cut]
    assert read_as_host(stream) == []
    with pytest.raises(EOFError):
        read_as_interpreter(stream)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 10_000])
def test_the_buffer_finds_frames_however_the_stream_is_cut(size: int) -> None:
    stream = inner_wire.encode(MESSAGE) * 3
    buffer = inner_wire.FrameBuffer()
    found = [message for start in range(0, len(stream), size) for message in buffer.feed(stream[start : start + size])]
    assert found == [MESSAGE] * 3


def test_a_length_beyond_the_limit_is_refused_before_the_body_comes() -> None:
    header = struct.pack(">I", host_wire.MAX_FRAME_BYTES + 1)
    with pytest.raises(host_wire.WireError, match="announced"):
        read_as_host(header)
    with pytest.raises(inner_wire.WireError, match="announced"):
        read_as_interpreter(header)
    with pytest.raises(inner_wire.WireError, match="announced"):
        inner_wire.FrameBuffer(limit=100).feed(struct.pack(">I", 101))
    with pytest.raises(host_wire.WireError, match="announced"):
        read_as_host(host_wire.encode({"op": "x" * 5000}), limit=host_wire.MAX_HELLO_BYTES)


@pytest.mark.parametrize("module", [host_wire, inner_wire])
def test_too_long_a_message_is_not_sent(module: Any) -> None:
    with pytest.raises(module.WireError, match="at most"):
        module.encode({"png": bytes(module.MAX_FRAME_BYTES)})


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",  # a byte msgpack never uses
        b"\x91" * 5000,  # nesting without end
        b"\x93\x01\x02\x03",  # a list
        b"\x81\x01\x02",  # a map with a number as key
        b"\xdf\xff\xff\xff\xff",  # a map of four thousand million entries, none of which come
        b"\xc6\xff\xff\xff\xff",  # bytes of 4 GiB, none of which come
        b"\x80\x80",  # something after the end
    ],
)
def test_a_body_that_is_no_message_is_refused(body: bytes) -> None:
    for module in (host_wire, inner_wire):
        with pytest.raises(module.WireError):
            module.decode(body)


def announced(tag: int, size: int) -> bytes:
    return bytes([tag]) + struct.pack(">I", size)


ANNOUNCED = {
    f"tag {tag:x} of {size}": b"\x81\xa1a" + announced(tag, size) * repeated + bytes(30)
    for tag in (0xC6, 0xC9, 0xDB, 0xDD, 0xDF)
    for size in (1 << 16, 1 << 28, (1 << 32) - 1)
    for repeated in (1, 100)
}
COSTLY = {
    "a million empty lists": b"\x81\xa1a" + announced(0xDD, 1 << 20) + b"\x90" * (1 << 20),
    "thousands of maps": b"\x81\xa1a\xdc\x00\xff" + (b"\x8f" + b"".join(b"\xa1%c\x80" % n for n in range(15))) * 255,
    "lists in lists, each as long as the frame": b"\x81\xa1a" + announced(0xDD, 1 << 20) * 400 + bytes(1 << 20),
}


def refuses_cheaply(module: Any, body: bytes) -> bool:
    tracemalloc.start()
    try:
        with pytest.raises(module.WireError):
            module.decode(body)
        return tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("module", [host_wire, inner_wire])
@pytest.mark.parametrize("body", ANNOUNCED.values(), ids=ANNOUNCED.keys())
def test_what_is_announced_and_does_not_come_costs_nothing(module: Any, body: bytes) -> None:
    assert refuses_cheaply(module, body)


@pytest.mark.parametrize("body", COSTLY.values(), ids=COSTLY.keys())
def test_the_host_refuses_what_would_take_many_times_its_size(body: bytes) -> None:
    assert refuses_cheaply(host_wire, body)


@given(st.binary(max_size=200))
@settings(max_examples=500, deadline=None)
def test_any_bytes_give_messages_or_a_wire_error(stream: bytes) -> None:
    with contextlib.suppress(host_wire.WireError):
        read_as_host(stream)
    with contextlib.suppress(inner_wire.WireError):
        inner_wire.FrameBuffer().feed(stream)


@pytest.mark.parametrize(
    "body",
    [
        b"\x81\xa1a\xdc\x10\x00" + b"\x01" * 4096,  # a long list
        b"\x81\xa1a\xdc\x00\xff" + (b"\xdc\x00\x0f" + b"\x90" * 15) * 255,  # thousands of lists
        b"\x81\xa1a\xdc\x00\xff" + (b"\xdc\x00\x0f" + b"\x80" * 15) * 255,  # thousands of maps
        b"\x81\xa1a\xd6\xff\x00\x00\x00\x00",  # a time stamp
    ],
)
def test_the_host_does_not_decode_what_no_reply_holds(body: bytes) -> None:
    inner_wire.decode(body)
    with pytest.raises(host_wire.WireError):
        host_wire.decode(body)


async def _talk(only_when_asked: bool, questions: int, answers: int) -> tuple[list[object], bool]:
    """Returns the replies to `questions` calls of `receive` after `answers` frames were sent, and true for its end."""
    mine, its = socket.socketpair()
    _, peer = await asyncio.get_running_loop().create_unix_connection(host_wire.Peer, sock=mine)
    its.sendall(inner_wire.encode({"op": "hello"}))
    await peer.hello(5)
    peer.only_when_asked = only_when_asked
    replies: list[object] = []
    for number in range(questions):
        asked = asyncio.create_task(peer.receive(5))
        await asyncio.sleep(0)
        if number == 0:
            its.sendall(inner_wire.encode({"op": "result"}) * answers)
        replies.append(await asked)
        await asyncio.sleep(0.05)
    closed = peer.closed
    peer.close()
    its.close()
    return replies, closed


def test_a_peer_that_answers_once_per_question_is_heard() -> None:
    assert asyncio.run(_talk(only_when_asked=True, questions=1, answers=1)) == ([{"op": "result"}], False)
    assert asyncio.run(_talk(only_when_asked=False, questions=2, answers=2)) == ([{"op": "result"}] * 2, False)


def test_an_answer_that_was_sent_ahead_of_its_question_ends_the_connection() -> None:
    replies, closed = asyncio.run(_talk(only_when_asked=True, questions=2, answers=2))
    assert closed and replies == [{"op": "result"}, None]


async def _accepted(path: Path) -> tuple[host_wire.Peer, socket.socket]:
    """Returns a peer as a listener gets it, and the socket that has connected to it."""
    connected: asyncio.Future[host_wire.Peer] = asyncio.get_running_loop().create_future()
    server = await host_wire.listen(path, connected.set_result)
    its = socket.socket(socket.AF_UNIX)
    its.setblocking(False)
    its.connect(str(path))
    peer = await connected
    server.close()
    return peer, its


@pytest.mark.asyncio
async def test_a_stranger_may_send_one_small_frame_and_is_read_on_after_it(tmp_path: Path) -> None:
    peer, its = await _accepted(tmp_path / "socket")
    assert peer.uid == os.geteuid()
    its.sendall(inner_wire.encode({"op": "hello"}) + inner_wire.encode({"op": "input", "images": [bytes(100_000)]}))
    await asyncio.sleep(0.05)
    assert await peer.hello(5) == {"op": "hello"}
    assert await peer.receive(5) == {"op": "input", "images": [bytes(100_000)]}
    peer.close()
    its.close()


@pytest.mark.asyncio
async def test_a_hello_that_is_too_long_or_broken_ends_the_connection_with_its_reason(tmp_path: Path) -> None:
    for number, stream in enumerate((inner_wire.encode({"op": "x" * 5000}), struct.pack(">I", 3) + b"\xc1\xc1\xc1")):
        peer, its = await _accepted(tmp_path / str(number))
        its.sendall(stream)
        with pytest.raises(host_wire.WireError):
            await peer.hello(5)
        assert peer.closed and await peer.receive(5) is None
        its.close()


@pytest.mark.asyncio
async def test_a_sender_is_held_up_while_nobody_receives(tmp_path: Path) -> None:
    peer, its = await _accepted(tmp_path / "socket")
    its.sendall(inner_wire.encode({"op": "hello"}))
    await peer.hello(5)
    frame, sent = inner_wire.encode({"op": "pong", "number": bytes(50_000)}), 0
    for _ in range(200):
        with contextlib.suppress(BlockingIOError):
            sent += its.send(frame)
        await asyncio.sleep(0)
    assert sent < 100 * len(frame)
    whole = sent // len(frame)
    its.setblocking(True)
    its.shutdown(socket.SHUT_WR)
    received = 0
    while await peer.receive(5) is not None:
        received += 1
    assert 4 < received <= whole
    its.close()


@pytest.mark.asyncio
async def test_a_wait_that_times_out_leaves_the_answer_to_the_next(tmp_path: Path) -> None:
    peer, its = await _accepted(tmp_path / "socket")
    its.sendall(inner_wire.encode({"op": "hello"}))
    await peer.hello(5)
    with pytest.raises(TimeoutError):
        await peer.receive(0.01)
    its.sendall(inner_wire.encode(MESSAGE))
    assert await peer.receive(5) == MESSAGE
    its.close()
    assert await peer.receive(5) is None
    peer.close()


def test_a_peer_is_served_by_the_event_loop_of_ray_too(tmp_path: Path) -> None:
    uvloop = pytest.importorskip("uvloop")

    async def talk() -> None:
        peer, its = await _accepted(tmp_path / "socket")
        its.sendall(inner_wire.encode({"op": "hello"}) + inner_wire.encode(MESSAGE))
        assert peer.uid == os.geteuid()
        assert (await peer.hello(5), await peer.receive(5)) == ({"op": "hello"}, MESSAGE)
        its.close()
        assert await peer.receive(5) is None

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(talk())
