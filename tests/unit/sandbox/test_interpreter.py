"""What the host makes of a keeper that introduces itself with nonsense."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from codedance_verl.sandbox import wire
from codedance_verl.sandbox.interpreter import Interpreter


@pytest.mark.parametrize("uid_span", [None, "many", [], {}, -1, 0, 1 << 16, 1 << 32, 1 << 63, 0.5, float("inf"), True])
def test_a_keeper_is_served_until_it_leaves_whatever_it_claims(uid_span: Any) -> None:
    async def serve() -> Interpreter:
        mine, its = socket.socketpair()
        its.sendall(wire.encode({"op": "hello", "role": "keeper", "uid_span": uid_span}))
        its.sendall(wire.encode({"op": "killed", "session": ["unknown"]}))
        its.close()
        peer = wire.Peer(*await asyncio.open_connection(sock=mine))
        member = Interpreter("keeper", capacity=1)
        await asyncio.wait_for(member.serve_keeper(peer, await peer.hello(5)), 5)
        return member

    member = asyncio.run(serve())
    assert member.dead.is_set() and next(member._uids) >= 10_000
