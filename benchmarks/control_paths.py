"""Calls and bytes of the control paths between rollout workers, sandbox nodes and Ray's head, by size of the cluster.

The clients are the real ones (`ClientNodes`, `SandboxPool`, `NodeMetrics`). Actors, names and Ray's store are stand-ins
that count what reaches them. As a scale, each path is also counted for workers that hold all nodes: they all do the
same, so one is counted and taken times their number.

    python -m benchmarks.control_paths --output outputs/control_paths.json
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import pickle
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from codedance_verl.metrics.emit import Sample, Tally
from codedance_verl.sandbox.client_nodes import ClientNodes, RemoteNode, standby_config
from codedance_verl.sandbox.config import SandboxConfig
from codedance_verl.sandbox.directory import Directory
from codedance_verl.sandbox.errors import SandboxBusy
from codedance_verl.sandbox.node_metrics import NodeMetrics
from codedance_verl.sandbox.pool import SandboxPool

SIZES = (16, 128, 1000)
WORKERS_A_NODE = 8
"""verl's rollout workers on a node of eight GPUs."""
CONFIG = SandboxConfig(standby_containers=1)
NAME_BYTES = 130
"""An entry of Ray's list of named actors: a name with job, settings and node, and its namespace."""


@dataclass
class Cost:
    """Calls, each a request with its answer, and the bytes of both."""

    calls: int = 0
    bytes: int = 0

    def add(self, size: int) -> None:
        """Counts a call whose request and answer have `size` bytes."""
        self.calls += 1
        self.bytes += size

    def times(self, number: int) -> Cost:
        """Returns what `number` like this cost."""
        return Cost(self.calls * number, self.bytes * number)


@dataclass
class Cluster:
    """Stand-in for Ray: a store, names, and node actors that are full when `full`; `cost` is what reached them."""

    node_ids: Sequence[str]
    full: bool = False
    cost: Cost = field(default_factory=Cost)
    opened: Counter[str] = field(default_factory=Counter)
    values: dict[str, bytes] = field(default_factory=dict)

    def taken(self) -> Cost:
        """Returns the cost since the last call."""
        cost, self.cost = self.cost, Cost()
        return cost

    def get(self, key: Any, node_id: str | None = None, index: int = 0) -> Any:
        """Returns the value of a key of the store, or with a node its actor: both are a look-up at Ray's head."""
        if node_id is not None:
            self.cost.add(NAME_BYTES)
            return _Actor(self, node_id)
        value = self.values.get(key)
        self.cost.add(len(key) + len(value or b""))
        return value

    def put(self, key: str, value: bytes) -> None:
        """Sets a value in the store."""
        self.values[key] = value
        self.cost.add(len(key) + len(value))

    def delete_below(self, prefix: str) -> None:
        """Removes keys of the store."""
        self.values = {key: value for key, value in self.values.items() if not key.startswith(prefix)}

    def get_or_start(self, config: SandboxConfig, node_id: str, standby: bool, index: int = 0) -> Any:
        """Returns a node's actor."""
        return self.get(config, node_id)

    def is_alive(self, node_id: str) -> bool:
        """Returns true: no node is lost."""
        return True


class _Actor:
    """Stand-in for the handle of a node actor."""

    def __init__(self, cluster: Cluster, node_id: str) -> None:
        self._cluster = cluster
        self._node_id = node_id

    def __getattr__(self, name: str) -> Any:
        return _Method(self._cluster, self._node_id, name)


@dataclass(frozen=True)
class _Method:
    cluster: Cluster
    node_id: str
    name: str

    def remote(self, *arguments: Any) -> Any:
        if self.name == "take_metrics":
            self.cluster.cost.add(len(pickle.dumps(TALLY)))
            return self.node_id
        self.cluster.cost.add(len(pickle.dumps(arguments)))
        return self._called()

    async def _called(self) -> str:
        if self.name == "client_socket":
            return "/nothing/there"  # so that sessions go through the actor, as on other machines
        if self.name == "open":
            if self.cluster.full:
                raise SandboxBusy("every place is taken")
            self.cluster.opened[self.node_id] += 1
        return self.node_id


def _tally() -> Tally:
    """A node's answer of the size it has in a run: the series of its calls, sessions and interpreters."""
    from codedance_verl.metrics import catalogue

    metrics = [value for name, value in vars(catalogue).items() if name.startswith("SANDBOX_")]
    return {f"{metric.tracker}/{k}": Sample(metric.kind, 1.5, 3) for metric in metrics for k in range(2)}


TALLY = _tally()


def _workers(cluster: Cluster, directory: Directory, nodes: Sequence[str]) -> list[ClientNodes]:
    """The clients of all rollout workers of `nodes`."""
    return [ClientNodes(CONFIG, own, directory, cluster, list) for own in nodes for _ in range(WORKERS_A_NODE)]


async def _open_sessions(clients: Sequence[Any]) -> None:
    for nodes in clients:
        async with contextlib.AsyncExitStack() as cleanup:
            with contextlib.suppress(SandboxBusy):
                await SandboxPool(nodes).open_on_any("0123456789abcdef", (), cleanup)
            cleanup.pop_all()  # what closing costs is the same for all


def _metrics(cluster: Cluster, directory: Directory, workers: int) -> dict[str, Any]:
    """A step's metrics: one process asks all node actors, and each rollout worker is asked for its own."""
    kinds = [kind for kind in (CONFIG, standby_config(CONFIG)) if kind is not None]
    answers = lambda calls, _: dict.fromkeys(calls, TALLY)  # noqa: E731
    asker = NodeMetrics(
        lambda: [f"{k}/{node}" for node in directory.all() for k in range(len(kinds))],
        lambda name: cluster.get(CONFIG, name),
        answers,
    )
    costs, seconds = [], 0.0
    for _ in range(2):
        started = time.perf_counter()
        asker.ask()
        told = asker.take(5.0)
        seconds = time.perf_counter() - started
        assert len(told) == len(kinds) * len(cluster.node_ids)
        cost = cluster.taken()
        costs.append(Cost(cost.calls + workers, cost.bytes + workers * len(pickle.dumps(TALLY))))
    everyone = [RemoteNode(CONFIG, node_id, cluster) for node_id in cluster.node_ids]
    for node in everyone:
        for actor in node.actors:
            actor.take_metrics.remote()
    all_ask = cluster.taken().times(workers)
    return {
        "first step": vars(costs[0]),
        "a step": vars(costs[1]),
        "a step, every worker asking every node": vars(all_ask),
        "seconds of the asker": round(seconds, 4),
    }


def _handles(cluster: Cluster, directory: Directory) -> dict[str, Any]:
    """Look-ups of all workers until each has opened its first session."""
    clients = _workers(cluster, directory, cluster.node_ids)
    asyncio.run(_open_sessions(clients))
    found = cluster.taken()
    actors = len(cluster.node_ids) * 2
    for node_id in cluster.node_ids:
        for _ in range(2):
            cluster.get_or_start(CONFIG, node_id, False)
    cluster.cost.add(actors * NAME_BYTES)  # Ray's list of named actors
    held = cluster.taken().times(len(clients))
    return {"at the start": vars(found), "at the start, every worker holding every node": vars(held)}


def _refused(cluster: Cluster, directory: Directory) -> dict[str, Any]:
    """A session of each worker while every node is full."""
    cluster.full = True
    clients = _workers(cluster, directory, cluster.node_ids)
    asyncio.run(_open_sessions(clients))
    cluster.taken()
    asyncio.run(_open_sessions(clients))
    found = cluster.taken()
    asyncio.run(_open_sessions([[RemoteNode(CONFIG, node_id, cluster) for node_id in cluster.node_ids]]))
    everyone = cluster.taken().times(len(clients))
    cluster.full = False
    return {"a session each": vars(found), "a session each, every worker asking every node": vars(everyone)}


def _spread(size: int) -> dict[str, Any]:
    """Sessions by node where interpreters are on an eighth of the nodes, and no rollout worker is on these."""
    serving = [f"{index:056x}" for index in range(max(size // 8, 1))]
    cluster = Cluster(serving)
    directory = Directory("sandbox-job-settings-nodes", cluster)
    directory.publish(dict.fromkeys(serving, 1))
    clients = _workers(cluster, directory, [f"gpu{index:053x}" for index in range(size)])
    for _ in range(16):
        asyncio.run(_open_sessions(clients))
    counts = [cluster.opened[node_id] for node_id in serving]
    return {"nodes": len(serving), "mean": sum(counts) / len(counts), "least": min(counts), "most": max(counts)}


def measured(size: int) -> dict[str, Any]:
    """Returns the costs of every path on `size` nodes, each with eight rollout workers and interpreters."""
    cluster = Cluster([f"{index:056x}" for index in range(size)])
    directory = Directory("sandbox-job-settings-nodes", cluster)
    directory.publish(dict.fromkeys(cluster.node_ids, 1))
    published = cluster.taken()
    workers = size * WORKERS_A_NODE
    return {
        "nodes": size,
        "workers": workers,
        "directory written": vars(published),
        "metrics": _metrics(cluster, directory, workers),
        "handles": _handles(cluster, directory),
        "refused": _refused(cluster, directory),
        "sessions elsewhere": _spread(size),
    }


def main(arguments: Sequence[str] | None = None) -> Mapping[str, Any]:
    """Prints the costs at each size as JSON, and returns them."""
    parser = argparse.ArgumentParser(description="calls and bytes of the control paths")
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="numbers of nodes")
    parser.add_argument("--output", type=Path, help="a file for the JSON")
    chosen = parser.parse_args(arguments)
    found = {size: measured(int(size)) for size in chosen.sizes.split(",")}
    text = json.dumps(found, indent=2)
    if chosen.output is not None:
        chosen.output.parent.mkdir(parents=True, exist_ok=True)
        chosen.output.write_text(text + "\n")
    print(text)
    return found


if __name__ == "__main__":
    logging.getLogger("codedance_verl").setLevel(logging.ERROR)  # a warning for each refusal says nothing here
    main()
