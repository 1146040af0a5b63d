"""Nodes that a client looks up and asks: its own, a few others when that refuses, and never all of them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from typing import Any

import pytest

from codedance_verl.sandbox.client_nodes import OTHERS_ASKED, ClientNodes, RemoteNode
from codedance_verl.sandbox.config import SandboxConfig
from codedance_verl.sandbox.directory import PAGE_NODES, Directory
from codedance_verl.sandbox.errors import NodeLost, SandboxBusy, SandboxUnavailable
from codedance_verl.sandbox.pool import SandboxPool
from codedance_verl.types import Execution, ExecutionStatus, RenderedImage

CONFIG = SandboxConfig(containers=2, standby_containers=1)


class Store:
    """Ray's store, as a dictionary that counts what is read."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.reads: list[str] = []

    def get(self, key: str) -> bytes | None:
        self.reads.append(key)
        return self.values.get(key)

    def put(self, key: str, value: bytes) -> None:
        self.values[key] = value

    def delete_below(self, prefix: str) -> None:
        self.values = {key: value for key, value in self.values.items() if not key.startswith(prefix)}


class Method:
    def __init__(self, call: Any) -> None:
        self.remote = call


class Cluster:
    """Finds actors; those of `full` have no place."""

    def __init__(self, full: Sequence[str] = (), dead: Sequence[str] = ()) -> None:
        self.full, self.dead = set(full), set(dead)
        self.found: list[tuple[str, int, bool]] = []
        self.asked: list[str] = []

    def get(self, config: SandboxConfig, node_id: str, index: int) -> Any:
        return None

    def get_or_start(self, config: SandboxConfig, node_id: str, standby: bool, index: int) -> Any:
        self.found.append((node_id, config.containers, standby))

        async def opened(*_: Any) -> str:
            self.asked.append(node_id)
            if node_id in self.full:
                raise SandboxBusy("full")
            return "session"

        async def no_socket() -> str:
            return "/nothing/there"

        actor = type("Actor", (), {})()
        actor.open, actor.client_socket = Method(opened), Method(no_socket)
        return actor

    def is_alive(self, node_id: str) -> bool:
        return node_id not in self.dead


def _ids(number: int) -> list[str]:
    return [f"node{index:04d}" for index in range(number)]


def _directory(number: int) -> tuple[Directory, Store]:
    store = Store()
    directory = Directory("sandbox-1-2-nodes", store)
    directory.publish(dict.fromkeys(_ids(number), 1))
    return directory, store


def _client(directory: Directory, cluster: Cluster, own: str, unpublished: Sequence[str] = ()) -> ClientNodes:
    return ClientNodes(CONFIG, own, directory, cluster, lambda: unpublished)


async def _open(nodes: ClientNodes) -> Any:
    async with contextlib.AsyncExitStack() as cleanup:
        try:
            return await SandboxPool(nodes).open_on_any("session", (), cleanup)
        finally:
            cleanup.pop_all()


@pytest.mark.asyncio
async def test_a_client_whose_node_serves_looks_up_that_node_alone() -> None:
    directory, store = _directory(1000)
    cluster = Cluster()
    nodes = _client(directory, cluster, "node0007")
    for _ in range(20):
        await _open(nodes)
    assert cluster.found == [("node0007", 2, False)]
    assert len(store.reads) == 2 and cluster.asked == ["node0007"] * 20


@pytest.mark.asyncio
async def test_a_session_that_its_node_refuses_asks_a_few_others_and_then_says_so() -> None:
    directory, _ = _directory(1000)
    cluster = Cluster(full=_ids(1000))
    with pytest.raises(SandboxBusy):
        await _open(_client(directory, cluster, "node0007"))
    assert cluster.asked[0] == "node0007"
    assert len(set(cluster.asked)) == len(cluster.asked) == 1 + OTHERS_ASKED


@pytest.mark.asyncio
async def test_a_client_that_is_refused_again_and_again_comes_to_ask_every_node() -> None:
    directory, _ = _directory(4 * PAGE_NODES)
    cluster = Cluster(full=_ids(4 * PAGE_NODES)[:-1])
    nodes = _client(directory, cluster, "node0000")
    for _ in range(2000):
        with contextlib.suppress(SandboxBusy):
            await _open(nodes)
            return
    pytest.fail("the one free node was never asked")


@pytest.mark.asyncio
async def test_a_client_without_interpreters_reads_one_page_and_spreads_its_sessions_over_it() -> None:
    directory, store = _directory(1000)
    cluster = Cluster()
    nodes = _client(directory, cluster, "elsewhere")
    for _ in range(2000):
        await _open(nodes)
    assert len(store.reads) == 3
    counts = [cluster.asked.count(node_id) for node_id in set(cluster.asked)]
    assert len(counts) in (PAGE_NODES - 1, PAGE_NODES) and min(counts) > 60


@pytest.mark.asyncio
async def test_nodes_that_have_left_are_passed_over_for_others() -> None:
    directory, _ = _directory(3 * PAGE_NODES)
    cluster = Cluster()
    nodes = _client(directory, cluster, "elsewhere")
    await _open(nodes)
    for node_id in list(nodes._others):
        nodes.node(node_id)._mains[0].gone = True
    opened = await _open(nodes)
    assert not opened.gone
    for node_id in _ids(3 * PAGE_NODES):
        nodes.node(node_id)._mains[0].gone = True
    with pytest.raises(SandboxUnavailable, match="every sandbox node has left the cluster"):
        await _open(nodes)


@pytest.mark.asyncio
async def test_where_nobody_has_started_any_a_client_uses_what_it_may() -> None:
    cluster = Cluster()
    await _open(_client(Directory("none", Store()), cluster, "own", ["own"]))
    await _open(_client(Directory("none", Store()), cluster, "elsewhere", ["other"]))
    assert cluster.asked == ["own", "other"]


def test_of_the_actors_of_a_node_the_second_is_the_standby() -> None:
    cluster = Cluster()
    assert len(RemoteNode(CONFIG, "node", cluster).actors) == 2
    assert cluster.found == [("node", 2, False), ("node", 1, True)]


def test_a_directory_has_every_node_once_in_pages_of_one_size() -> None:
    directory, store = _directory(1000)
    pages = [directory.page(number) for number in range(directory.pages())]
    assert directory.all() == dict.fromkeys(_ids(1000), 1)
    assert {len(page) for page in pages} <= {PAGE_NODES - 1, PAGE_NODES}
    assert directory.actors("node0999") == 1 and directory.actors("node1000") == 0
    directory.remove()
    assert store.values == {} and directory.pages() == 0 and directory.all() == {}


@pytest.mark.asyncio
async def test_a_refusal_is_told_when_another_node_is_asked(caplog: pytest.LogCaptureFixture) -> None:
    directory, _ = _directory(2)
    cluster = Cluster(full=["node0000"])
    with caplog.at_level(logging.WARNING):
        await _open(_client(directory, cluster, "node0000"))
    assert cluster.asked == ["node0000", "node0001"]
    said = [record.getMessage() for record in caplog.records]
    assert [line.partition(": [Errno")[0] for line in said] == [
        "sandbox: the socket of a node does not answer",
        "sandbox: full; trying another node",
    ]


class Died:
    """An actor whose calls end as those of a dead one do."""

    def __getattr__(self, name: str) -> Method:
        async def lost(*_: Any) -> None:
            raise NodeLost("died")

        return Method(lost)


class Host:
    """A machine with several node actors: `sessions` are those of each, an actor of `dead` loses every call."""

    def __init__(self) -> None:
        self.sessions: dict[int, list[str]] = {0: [], 1: [], 2: []}
        self.dead: set[int] = set()
        self.started: list[int] = []

    def get(self, config: SandboxConfig, node_id: str, index: int) -> Any:
        return None

    def is_alive(self, node_id: str) -> bool:
        return True

    def get_or_start(self, config: SandboxConfig, node_id: str, standby: bool, index: int) -> Any:
        self.started.append(index)

        async def call(*arguments: Any) -> Any:
            if index in self.dead:
                raise NodeLost("died")
            return arguments

        async def opened(images: Any, session_id: str) -> None:
            await call()
            self.sessions[index].append(session_id)

        async def ready() -> None:
            while index in self.dead:
                await asyncio.sleep(0.01)

        actor = type("Actor", (), {})()
        actor.open, actor.ready, actor.run, actor.close = Method(opened), Method(ready), Method(call), Method(call)
        return actor


@pytest.mark.asyncio
async def test_sessions_are_spread_over_the_actors_of_a_host_by_what_they_hold() -> None:
    host = Host()
    node = RemoteNode(CONFIG, "node", host, actors=3)
    ids = [await node.open() for _ in range(9)]
    assert [len(sessions) for sessions in host.sessions.values()] == [3, 3, 3]
    for session_id in host.sessions[1]:
        await node.close(session_id)
    more = [await node.open() for _ in range(3)]
    assert host.sessions[1][3:] == more and len(set(ids + more)) == 12
    assert len(node.actors) == 3, "a standby is needed beside one actor alone"


@pytest.mark.asyncio
async def test_an_actor_that_dies_costs_its_sessions_only_and_others_serve_until_it_is_back() -> None:
    host = Host()
    node = RemoteNode(CONFIG, "node", host, actors=3)
    ids = [await node.open() for _ in range(6)]
    host.dead.add(1)
    for session_id in ids:
        if session_id in host.sessions[1]:
            with pytest.raises(NodeLost):
                await node.run(session_id, "1")
        else:
            assert (await node._held[session_id].session.run("1", None))[0] == session_id  # type: ignore[index]
    assert not node.is_up and host.started.count(1) == 2, "the first who notices starts the successor"
    more = [await node.open() for _ in range(4)]
    assert not set(more) & set(host.sessions[1])
    host.dead.clear()
    for _ in range(200):
        await asyncio.sleep(0.01)
        if node.is_up:
            break
    last = [await node.open() for _ in range(3)]
    assert set(last) & set(host.sessions[1])


@pytest.mark.asyncio
async def test_a_death_that_is_noticed_before_ray_counts_it_is_asked_about_again() -> None:
    host = Host()
    living = host.get_or_start

    def late(config: SandboxConfig, node_id: str, standby: bool, index: int) -> Any:
        found = living(config, node_id, standby, index)
        return Died() if host.started.count(0) == 2 else found  # the name is still the dead actor's

    host.get_or_start = late  # type: ignore[method-assign]
    node = RemoteNode(CONFIG.replace(standby_containers=0), "node", host)
    session_id = await node.open()
    host.dead.add(0)
    with pytest.raises(NodeLost):
        await node.run(session_id, "1")
    host.dead.clear()
    for _ in range(200):
        await asyncio.sleep(0.01)
        if node.is_up:
            break
    assert node.is_up and host.started == [0, 0, 0]
    assert await node.open() in host.sessions[0]


@pytest.mark.asyncio
@pytest.mark.parametrize("png", [b"no image", b"\x89PNG\r\n\x1a\n"])
async def test_a_broken_image_ends_its_session_alone_and_is_told_as_killed(png: bytes) -> None:
    host = Host()
    node = RemoteNode(CONFIG.replace(standby_containers=0), "node", host)

    async def shown(*_: Any) -> Execution:
        return Execution(ExecutionStatus.OK, images=(RenderedImage("", 1, 1, png),))

    pool = SandboxPool([node])
    async with pool.session() as session, pool.session() as other:
        held = node._held[session.session_id]
        held.actor.run = Method(shown)
        assert (await session.run("1")).status is ExecutionStatus.KILLED
        assert list(node._held) == [other.session_id] and node._mains[0].sessions == 1
    assert node._held == {} and node._mains[0].sessions == 0
