"""Broken frames at both readers of the wire format, and garbage on the sockets of a node that is at work."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import struct
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from codedance_verl.sandbox import wire
from codedance_verl.sandbox.config import SandboxConfig
from codedance_verl.sandbox.docker.launcher import SOCKET_NAME
from codedance_verl.sandbox.fleet import HELLO_SECONDS
from codedance_verl.sandbox.node import SandboxNode
from codedance_verl.sandbox.pool import SandboxPool
from codedance_verl.sandbox.process import ProcessLauncher
from codedance_verl.types import ExecutionStatus
from tests.fuzz.corpus import image
from tests.fuzz.mutation import frames_like

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

PROCESSES = 2
FUZZ_SECONDS = 240.0
CONNECTIONS = 3000
FORGED_REPORTS = 200
AT_ONCE = 4
CHANNEL_ATTACKS = 50
ANSWER_SECONDS = 30.0
REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize("frames", [100_000, pytest.param(1_000_000, marks=pytest.mark.long)])
async def test_broken_frames_are_refused_or_read(frames: int) -> None:
    async def fuzz(seed: int) -> dict[str, int]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.fuzz.wire", "--seed", str(seed), "--frames", str(frames // PROCESSES)),
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            told, log = await asyncio.wait_for(process.communicate(), FUZZ_SECONDS)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        assert process.returncode == 0, log.decode()[-6000:]
        print(told.decode().strip())
        return dict(json.loads(told))

    tallies = await asyncio.gather(*map(fuzz, range(PROCESSES)))
    assert sum(tally["frames"] for tally in tallies) == frames
    for tally in tallies:  # neither everything nor nothing passes, else the fuzzer has gone blunt
        assert tally["frames"] / 20 < tally["executions"] < tally["frames"] / 2
        assert tally["replies_refused"] > tally["executions"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node() -> AsyncIterator[SandboxNode]:
    """One interpreter of the process backend; as root its sessions have uids of their own."""
    config = SandboxConfig(
        backend="process", containers=1, standby_containers=0, sessions_per_container=8, kill_grace_s=0.3
    )
    node = SandboxNode(config, ProcessLauncher(config, own_uids=os.geteuid() == 0))
    await node.start()
    yield node
    await node.shutdown()


@contextlib.asynccontextmanager
async def bystanders(node: SandboxNode) -> AsyncIterator[None]:
    """Two sessions that go on working while the block runs; a call of theirs that fails fails the test."""
    at_work = True

    async def work(number: int) -> int:
        async with SandboxPool([node]).session() as session:
            await session.run(f"x = {number}")
            calls = 0
            while at_work:
                execution = await asyncio.wait_for(session.run("x"), ANSWER_SECONDS)
                assert (execution.status, execution.stdout) == (ExecutionStatus.OK, f"{number}\n"), execution
                calls += 1
                await asyncio.sleep(0.05)
            return calls

    tasks = [asyncio.create_task(work(number)) for number in (17, 23)]
    try:
        yield
    finally:
        at_work = False
        assert min(await asyncio.gather(*tasks)) > 0


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_garbage_on_the_socket_of_a_node_harms_nobody(node: SandboxNode) -> None:
    assert node._fleet is not None
    path = str(node._fleet._directory / SOCKET_NAME)
    (name,) = node.stats()["interpreters"]
    hello = {"op": "hello", "version": wire.VERSION, "name": name}
    hellos = [
        {**hello, "role": "init", "pid": 1, "uid_span": 1 << 32},
        {**hello, "role": "zygote", "pid": 7, "modules": ["numpy"]},
        {**hello, "role": "session", "session": "00112233aabbccdd"},
    ]
    before = open_descriptors()
    gate = asyncio.Semaphore(32)

    async def knock(number: int, frame: bytes) -> None:
        async with gate:
            reader, writer = await asyncio.open_unix_connection(path)
            with contextlib.suppress(ConnectionError):
                writer.write(frame)
                if number % 4:  # some leave at once, some wait for what the node makes of it, some say nothing more
                    writer.write_eof()
                    await asyncio.wait_for(reader.read(), HELLO_SECONDS + ANSWER_SECONDS)
            writer.close()

    async with bystanders(node):
        silent = [await asyncio.open_unix_connection(path) for _ in range(8)]
        for (_, writer), said in zip(silent, [b"\x00\x00", *map(wire.encode, hellos)], strict=False):
            writer.write(said)  # a second init or zygote, and a session nobody waits for, are sent away as well
        await asyncio.gather(*map(knock, range(CONNECTIONS), frames_like(hellos, 0, CONNECTIONS)))
        for reader, writer in silent:
            assert await asyncio.wait_for(reader.read(), HELLO_SECONDS + ANSWER_SECONDS) == b""
            writer.close()
    assert node.stats()["restarts"] == 0 and list(node.stats()["interpreters"]) == [name]
    for _ in range(100):  # sessions that were closed go in the background
        if open_descriptors() <= before:
            break
        await asyncio.sleep(0.1)
    assert open_descriptors() <= before, "connections of strangers stay open"
    async with SandboxPool([node]).session() as session:
        assert (await session.run("1 + 1")).stdout == "2\n"


FORGE = """
import codedance_interpreter.wire as wire
genuine, reports = wire.send, []
def send(peer, message):
    if 'done' in message:
        reports.append(message)
    if len(reports) > 1:
        peer.sendall({forged!r}.replace({mark!r}, message['cell']))
    else:
        genuine(peer, message)
wire.send = send
"""
MARK = b"\xab" * 16


async def test_forged_reports_of_a_session_are_believed_within_bounds_or_undo_the_cell(node: SandboxNode) -> None:
    reports = [
        {"cell": MARK, "done": {"error": None, "truncated": []}},
        {"cell": MARK, "done": {"error": {"kind": "E", "message": "m", "traceback": "t"}, "truncated": ["images"]}},
        {"cell": MARK, "image": image(b"\x89PNG")},
    ]
    ends: dict[str, int] = {}

    async def attack(forged: bytes) -> None:
        async with SandboxPool([node]).session() as session:
            assert (await session.run(FORGE.format(forged=forged, mark=MARK))).succeeded
            execution = await asyncio.wait_for(session.run("1", timeout_s=0.3), ANSWER_SECONDS)
            ends[execution.status] = ends.get(execution.status, 0) + 1
            assert len(execution.stdout) <= node.config.max_stdout_bytes + 64
            if execution.status is ExecutionStatus.KILLED:
                assert (await session.run("'genuine' in globals()")).stdout == "False\n"

    pending = iter(frames_like(reports, 1, FORGED_REPORTS))

    async def attacks() -> None:
        for forged in pending:
            await attack(forged)

    async with bystanders(node):
        await asyncio.gather(*(attacks() for _ in range(AT_ONCE)))
    print(ends)
    assert ends[ExecutionStatus.OK] < FORGED_REPORTS / 2
    assert ExecutionStatus.REJECTED not in ends


SPRAY = """
import os, stat, threading
junk = {junk!r}
def is_socket(descriptor):
    try:
        return stat.S_ISSOCK(os.fstat(descriptor).st_mode)
    except OSError:
        return False
def spray(most=None):
    for descriptor in [*filter(is_socket, range(3, 64))][:most]:
        try:
            os.write(descriptor, junk)
        except OSError:
            pass
def spray_on():
    while True:
        spray()
"""


@pytest.mark.parametrize("attack", ["spray()", "threading.Thread(target=spray_on).start()"])
async def test_a_cell_that_writes_into_the_channel_of_its_session_harms_nobody_else(
    node: SandboxNode, attack: str
) -> None:
    words = [
        {"image": image(b"\x89PNG")},
        {"done": {"error": None, "truncated": []}},
        {"cell": b"", "done": {"error": {"kind": "E", "message": "m", "traceback": ""}, "truncated": ["images"]}},
    ]
    ends: dict[str, int] = {}
    async with bystanders(node):
        for junk in frames_like(words, 2, CHANNEL_ATTACKS):
            async with SandboxPool([node]).session() as session:
                await session.run("x = 1")
                for code in (SPRAY.format(junk=junk) + attack, "x", "2"):
                    execution = await asyncio.wait_for(session.run(code, timeout_s=0.5), ANSWER_SECONDS)
                    ends[execution.status] = ends.get(execution.status, 0) + 1
    print(ends)


async def test_a_report_nested_too_deep_to_print_costs_its_cell_only(node: SandboxNode) -> None:
    body = b"\x81\xa4done\x82\xa5error\x83\xa4kind" + b"\x91" * 1010 + b"\xc0\xa7message\xa0\xa9traceback\xa0"
    body += b"\xa9truncated\x90"
    async with SandboxPool([node]).session() as session:
        await session.run("x = 1")
        into_its_channel = SPRAY.format(junk=struct.pack(">I", len(body)) + body) + "spray(1)"
        execution = await session.run(into_its_channel)
        assert execution.status is ExecutionStatus.ERROR, execution
        assert (await session.run("x")).stdout == "1\n"


async def test_garbage_from_the_host_ends_that_session_alone(node: SandboxNode) -> None:
    requests = [{"op": "run", "call": 2, "code": "1"}, {"op": "cancel", "call": 2}]
    async with bystanders(node):
        for frame in frames_like(requests, 3, CHANNEL_ATTACKS):
            async with SandboxPool([node]).session() as session:
                await session.run("x = 1")
                where = node._sessions[session.session_id].where
                assert where is not None and where[1].peer is not None and where[1].peer._transport is not None
                where[1].peer._transport.write(frame)
                execution = await asyncio.wait_for(session.run("x", timeout_s=0.3), ANSWER_SECONDS)
                assert execution.status is not ExecutionStatus.REJECTED
                assert (await asyncio.wait_for(session.run("5", timeout_s=5.0), ANSWER_SECONDS)) is not None
    assert node.stats()["restarts"] == 0
