"""Nodes that a client looks up and asks: its own, a few others when that refuses, and never all of them."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from typing import Any

import pytest

from codedance_verl.sandbox.client_nodes import OTHERS_ASKED, ClientNodes, RemoteNode
from codedance_verl.sandbox.config import SandboxConfig
from codedance_verl.sandbox.directory import PAGE_NODES, Directory
from codedance_verl.sandbox.errors import SandboxBusy, SandboxUnavailable
from codedance_verl.sandbox.pool import SandboxPool

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
