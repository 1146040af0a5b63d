"""Sessions over a node's socket: what a client sees of a node, of its death, and of frames and peers that are none."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import os
import socket
import stat
import struct
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
import pytest_asyncio

from codedance_verl.errors import UserError
from codedance_verl.sandbox import client_socket, errors, wire
from codedance_verl.sandbox import session_messages as messages
from codedance_verl.sandbox.client_socket import ClientSocket
from codedance_verl.sandbox.config import SandboxConfig
from codedance_verl.sandbox.local_session import LocalSession
from codedance_verl.types import Execution, ExecutionError, ExecutionStatus, RenderedImage

CONFIG = SandboxConfig()
IMAGE = RenderedImage("", 2, 3, b"png")
EXECUTION = Execution(
    ExecutionStatus.ERROR, "é\n", ExecutionError("E", "m", "t"), (IMAGE, IMAGE), 0.25, 0.5, ("stdout", "images")
)


Served = tuple["Node", ClientSocket, Path]


class Node:
    """A node that answers at once; code `hang` never ends, and the name of an error raises it."""

    def __init__(self) -> None:
        self.opened: dict[str, list[bytes]] = {}
        self.closed: list[str] = []
        self.code: list[tuple[str, float | None]] = []
        self.given_up = 0

    async def open(self, images: Sequence[bytes] = (), session_id: str | None = None) -> str:
        if b"busy" in images:
            raise errors.SandboxBusy("no place")
        assert session_id is not None
        self.opened[session_id] = list(images)
        return session_id

    async def run(self, session_id: str, code: str, timeout_s: float | None = None) -> Execution:
        self.code.append((code, timeout_s))
        if code == "hang":
            try:
                await asyncio.sleep(60)
            finally:
                self.given_up += 1
        if code in KINDS:
            raise KINDS[code]("as it was")
        return EXECUTION if code != "large" else dataclasses.replace(EXECUTION, stdout="x" * wire.MAX_FRAME_BYTES)

    async def close(self, session_id: str) -> None:
        self.closed.append(session_id)


KINDS: dict[str, type[Exception]] = {
    kind.__name__: kind
    for kind in (
        errors.SandboxError,
        errors.SandboxBusy,
        errors.SandboxUnavailable,
        errors.SandboxFull,
        errors.SandboxInputError,
        errors.UnknownSession,
        UserError,
    )
}


@pytest_asyncio.fixture
async def served() -> AsyncIterator[Served]:
    node = Node()
    server = ClientSocket(node)
    path = await server.start()
    yield node, server, path
    await server.stop()
    assert not path.parent.exists()


async def until(condition: object) -> None:
    assert callable(condition)
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it does not come true")


async def opened(path: Path, name: str = "a", images: Sequence[bytes] = ()) -> LocalSession:
    session = LocalSession(path, name, CONFIG)
    await session.open(images)
    return session


@pytest.mark.asyncio
async def test_an_execution_arrives_as_it_was_and_the_session_ends_with_its_connection(served: Served) -> None:
    node, _, path = served
    session = await opened(path, "a", [b"one", b"two", b"one"])
    assert node.opened == {"a": [b"one", b"two", b"one"]}
    assert await session.run("x = '\ud800'", 2.5) == EXECUTION
    assert node.code == [("x = '\ud800'", 2.5)]
    await session.close()
    await until(lambda: node.closed == ["a"])


@pytest.mark.asyncio
async def test_errors_of_a_node_arrive_as_what_they_were_and_leave_the_session(served: Served) -> None:
    _, _, path = served
    session = await opened(path)
    for name, kind in KINDS.items():
        with pytest.raises(kind, match="as it was") as raised:
            await session.run(name, None)
        assert type(raised.value) is kind
    assert await session.run("1", None) == EXECUTION
    with pytest.raises(errors.SandboxBusy, match="no place"):
        await opened(path, "b", [b"busy"])


@pytest.mark.asyncio
async def test_a_caller_who_gives_up_ends_the_cell_and_an_answer_for_it_goes_to_nobody_else(served: Served) -> None:
    node, _, path = served
    session, other = await opened(path), await opened(path, "b")
    running = asyncio.create_task(session.run("hang", None))
    await until(lambda: node.code == [("hang", None)])
    running.cancel()
    await session.close()
    await until(lambda: node.given_up == 1 and node.closed == ["a"])
    quick = asyncio.create_task(other.run("SandboxFull", None))
    await asyncio.sleep(0)
    quick.cancel()
    assert await other.run("1", None) == EXECUTION


@pytest.mark.asyncio
async def test_a_node_that_dies_is_lost_to_each_session_with_a_reason(served: Served) -> None:
    _, server, path = served
    session, running = await opened(path), await opened(path, "b")
    hanging = asyncio.create_task(running.run("hang", None))
    await asyncio.sleep(0.05)
    await server.stop()
    for call in (session.run("1", None), hanging):
        with pytest.raises(errors.NodeLost, match="the connection to the sandbox node is lost: it has ended"):
            await call
    with pytest.raises(OSError):
        await opened(path)


BROKEN = [
    struct.pack(">I", wire.MAX_FRAME_BYTES + 1),
    struct.pack(">I", 3) + b"\xc1\xc1\xc1",
    wire.encode({"op": "open", "version": 99, "session": "x", "digests": []}),
    wire.encode({"op": "open", "version": messages.VERSION, "session": 7, "digests": []}),
    wire.encode({"op": "open", "version": messages.VERSION, "session": "x", "digests": 5}),
    wire.encode({"op": "open", "version": messages.VERSION, "session": "x", "digests": []})
    + wire.encode({"op": "run"}),
    b"",
]


@pytest.mark.asyncio
@pytest.mark.parametrize("frame", BROKEN, ids=range(len(BROKEN)))
async def test_a_broken_frame_ends_its_own_session_and_no_other(served: Served, frame: bytes) -> None:
    node, _, path = served
    bystander = await opened(path)
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(frame)
    writer.write_eof()
    await asyncio.wait_for(reader.read(), 5)
    writer.close()
    await until(lambda: set(node.opened) - {"a"} <= set(node.closed))
    assert await bystander.run("1", None) == EXECUTION


@pytest.mark.asyncio
async def test_a_frame_that_is_too_long_costs_the_call_that_sent_it(served: Served) -> None:
    _, _, path = served
    session = await opened(path)
    with pytest.raises(errors.SandboxError, match="too long for the sandbox node"):
        await session.run(" " * (wire.MAX_FRAME_BYTES + 1), None)
    assert await session.run("1", None) == EXECUTION
    with pytest.raises(errors.SandboxError, match="at most"):
        await session.run("large", None)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "answer", [struct.pack(">I", 1 << 31), struct.pack(">I", 1) + b"\xc1", wire.encode({"op": "?"})]
)
async def test_an_answer_that_is_none_is_one_error_of_its_session(tmp_path: Path, answer: bytes) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(wire.encode({"op": "opened"}))
        await reader.read(1 << 16)
        writer.write(answer)

    server = await asyncio.start_unix_server(speak, tmp_path / "socket")
    session = await opened(tmp_path / "socket")
    with pytest.raises(errors.SandboxError):
        await session.run("1", None)
    await session.close()
    server.close()


@pytest.mark.asyncio
async def test_a_process_of_another_user_is_sent_away_unheard(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    node, _, path = served
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    monkeypatch.setattr(client_socket.os, "geteuid", lambda: os.getuid() + 1)
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.connect(str(path))
        stranger.settimeout(5)
        for _ in range(100):
            await asyncio.sleep(0.01)
            with contextlib.suppress(BlockingIOError):
                assert stranger.recv(1, socket.MSG_DONTWAIT) == b""
                break
        else:
            pytest.fail("the stranger keeps its connection")
    assert node.opened == {}


@pytest.mark.asyncio
async def test_a_socket_of_another_user_is_not_spoken_to(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    node, _, path = served
    from codedance_verl.sandbox import local_session

    monkeypatch.setattr(local_session.os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(PermissionError, match="uid"):
        await opened(path)
    assert node.opened == {}


@pytest.mark.asyncio
async def test_the_images_of_a_group_come_once(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    node, _, path = served
    sent: list[bytes] = []
    genuine = LocalSession._send

    def send(session: LocalSession, message: wire.Message) -> None:
        sent.extend(message.get("images", ()))
        genuine(session, message)

    monkeypatch.setattr(LocalSession, "_send", send)
    images = [os.urandom(300_000), os.urandom(10)]
    await asyncio.gather(*(opened(path, str(number), images) for number in range(8)))
    assert sorted(map(len, sent)) == [10, 300_000]
    assert all(found == images for found in node.opened.values()) and len(node.opened) == 8
    await opened(path, "later", [images[1], b"new"])
    assert len(sent) == 3 and node.opened["later"] == [images[1], b"new"]


@pytest.mark.asyncio
async def test_a_client_that_leaves_while_its_image_is_awaited_holds_up_no_sibling(served: Served) -> None:
    node, _, path = served
    digest = hashlib.sha256(b"image").digest()
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(wire.encode({"op": "open", "version": messages.VERSION, "session": "x", "digests": [digest]}))
    await reader.read(1)
    sibling = asyncio.create_task(opened(path, "a", [b"image"]))
    await asyncio.sleep(0.05)
    assert not sibling.done()
    writer.close()
    await asyncio.wait_for(sibling, 5)
    assert node.opened == {"a": [b"image"]}


@pytest.mark.asyncio
async def test_other_images_than_announced_are_refused(served: Served) -> None:
    node, _, path = served
    peer = await wire.connect(path)
    digest = hashlib.sha256(b"image").digest()
    peer.send({"op": "open", "version": messages.VERSION, "session": "x", "digests": [digest]})
    assert (await peer.receive(5) or {})["op"] == "images_needed"
    peer.send({"op": "images", "images": [b"another"]})
    with pytest.raises(errors.SandboxError, match="not the one that was announced"):
        messages.raise_failure(await peer.receive(5) or {})
    assert node.opened == {}
    peer.close()
