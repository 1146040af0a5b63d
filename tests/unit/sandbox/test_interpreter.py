"""Host's handling of an init that introduces itself with nonsense, and of sessions that find no room."""

from __future__ import annotations

import asyncio
import itertools
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest

from codedance_verl.sandbox import wire
from codedance_verl.sandbox.config import SandboxConfig
from codedance_verl.sandbox.docker.sizing import sized
from codedance_verl.sandbox.errors import SandboxError, SandboxFull, SandboxInputError, SandboxUnavailable
from codedance_verl.sandbox.fleet import Fleet
from codedance_verl.sandbox.interpreter import Interpreter
from codedance_verl.sandbox.process import ProcessLauncher


async def _peer(sock: socket.socket) -> wire.Peer:
    _, peer = await asyncio.get_running_loop().create_unix_connection(wire.Peer, sock=sock)
    return peer


@pytest.mark.parametrize("uid_span", [None, "many", [], {}, -1, 0, 1 << 16, 1 << 32, 1 << 63, 0.5, float("inf"), True])
def test_an_init_is_served_until_it_leaves_whatever_it_claims(uid_span: Any) -> None:
    async def serve() -> Interpreter:
        mine, its = socket.socketpair()
        its.sendall(wire.encode({"op": "hello", "role": "init", "uid_span": uid_span}))
        its.sendall(wire.encode({"op": "killed", "session": ["unknown"]}))
        its.close()
        peer = await _peer(mine)
        member = Interpreter("init", capacity=1)
        await asyncio.wait_for(member.serve_init(peer, await peer.hello(5)), 5)
        return member

    member = asyncio.run(serve())
    assert member.dead.is_set() and next(member._uids) >= 10_000


def _opened_with(answer: Callable[[wire.Message], wire.Message], *images: bytes) -> SandboxError:
    """Returns what `open` raises where the zygote refuses with `answer`, or the session answers with it."""

    async def serve() -> SandboxError:
        (mine, its), (session, its_session) = socket.socketpair(), socket.socketpair()
        its.sendall(wire.encode({"op": "hello"}))
        its_session.sendall(wire.encode({"op": "hello"}))
        peer = await _peer(mine)
        session_peer = await _peer(session)
        for each in (peer, session_peer):
            await each.hello(5)
        zygote = await _peer(its)
        member = Interpreter("container", capacity=1, _uids=itertools.count(1 << 20, 2))
        serving = asyncio.create_task(member.serve_zygote(peer, lambda: None))
        await member.ready.wait()
        opening = asyncio.create_task(member.open("key", sized(SandboxConfig(scratch_mb=16)), images))
        while (request := await zygote.receive(5)) is not None and request["op"] != "open":
            pass
        assert request is not None
        reply = answer(request)
        if reply["op"] == "refused":
            zygote.send(reply)
        else:
            assert member.admit("key", session_peer)
            its_session.sendall(wire.encode(reply))
        with pytest.raises(SandboxError) as raised:
            await asyncio.wait_for(opening, 10)
        serving.cancel()
        for each in (peer, session_peer, zygote):
            each.close()
        return raised.value

    return asyncio.run(serve())


@pytest.mark.parametrize(
    ("lacks", "key"),
    [
        ("files", "sandbox.scratch_mb=16"),
        ("memory", "sandbox.memory_mb="),
        ("session_memory", "sandbox.session_memory_mb=2048"),
        ("processes", "sandbox.pids=1024"),
    ],
)
def test_a_container_without_room_is_no_fault_of_the_image_and_the_setting_is_named(lacks: str, key: str) -> None:
    unusable = {"op": "unusable", "reason": "OSError: [Errno 28] No space left on device", "lacks": lacks}
    error = _opened_with(lambda _: unusable, b"image")
    assert isinstance(error, SandboxFull) and key in str(error)
    refused = _opened_with(lambda request: {"op": "refused", "session": request["session"], "lacks": lacks})
    assert isinstance(refused, SandboxFull) and key in str(refused)


@pytest.mark.parametrize("lacks", ["", "everything", None, 7, ["files"]])
def test_what_lacks_nothing_known_is_judged_as_before(lacks: Any) -> None:
    unusable = {"op": "unusable", "reason": "ValueError: no picture", "lacks": lacks}
    assert type(_opened_with(lambda _: unusable, b"image")) is SandboxInputError
    refused = {"op": "refused", "reason": "no more", "lacks": lacks}
    assert type(_opened_with(lambda request: refused | {"session": request["session"]})) is SandboxUnavailable


def test_the_answer_of_a_session_that_has_ended_meanwhile_is_read() -> None:
    async def welcome() -> wire.Message | None:
        mine, its = socket.socketpair()
        its.sendall(wire.encode({"op": "hello", "version": wire.VERSION, "name": "one", "role": "session"}))
        config = SandboxConfig(backend="process")
        peer = await _peer(mine)

        class Slow(ProcessLauncher):
            def root_uid(self, name: str) -> int:
                its.sendall(wire.encode({"op": "unusable"}))
                its.close()
                while not peer.closed:
                    time.sleep(0.001)
                return super().root_uid(name)

        fleet = Fleet(config, Slow(config))
        member = fleet._members["one"] = Interpreter("one", capacity=1)
        waiting = member._expected["key"] = asyncio.get_running_loop().create_future()
        await fleet._welcome(peer, await peer.hello(5) | {"session": "key"})
        return await (await asyncio.wait_for(waiting, 5)).receive(5)

    assert asyncio.run(welcome()) == {"op": "unusable"}


def test_a_session_goes_to_the_interpreter_that_had_room_whatever_their_load() -> None:
    async def choose(*avoid: str) -> str:
        config = SandboxConfig(backend="process", containers=2)
        fleet = Fleet(config, ProcessLauncher(config))
        for name, occupied in (("full", 1), ("roomy", 5)):
            member = fleet._members[name] = Interpreter(name, capacity=8, serving=True, occupied=occupied)
            member.ready.set()
        return (await fleet.acquire(1.0, avoid)).name

    assert asyncio.run(choose()) == "full"
    assert asyncio.run(choose("full")) == "roomy"
    assert asyncio.run(choose("full", "roomy")) == "full", "where no other is left, again the least occupied"
