"""One process asks all node actors; who is late or dead holds nobody up, and is not forgotten."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from codedance_verl.metrics.catalogue import Kind
from codedance_verl.metrics.emit import Sample, for_trackers
from codedance_verl.sandbox.errors import NodeLost
from codedance_verl.sandbox.node_metrics import NodeMetrics


class Nodes:
    """Actors by name, each of which counts 1 since it was last asked; those of `silent` do not answer."""

    def __init__(self, *names: str) -> None:
        self.names = list(names)
        self.silent: set[str] = set()
        self.dead: set[str] = set()
        self.looked_up: Counter[str] = Counter()
        self.asked: Counter[str] = Counter()
        self.metrics = NodeMetrics(lambda: self.names, self.find, self.answers)

    def find(self, name: str) -> Any | None:
        self.looked_up[name] += 1
        if name in self.dead and self.looked_up[name] > 1:
            return None
        owner = self

        class Call:
            def remote(self) -> str:
                owner.asked[name] += 1
                return name

        return type("Actor", (), {"take_metrics": Call()})()

    def answers(self, calls: Mapping[str, Any], timeout_s: float) -> Mapping[str, Any]:
        there = [name for name in calls if name not in self.silent]
        told = {"codedance/sandbox/calls_total/ok": Sample(Kind.COUNTER, 1.0, 1)}
        return {name: NodeLost("died") if name in self.dead else told for name in there}

    def step(self) -> float:
        self.metrics.ask()
        return for_trackers(self.metrics.take(5.0)).get("codedance/sandbox/calls_total/ok", 0.0)


def test_each_actor_is_looked_up_once_and_asked_once_a_step() -> None:
    nodes = Nodes("a", "b", "c")
    assert [nodes.step() for _ in range(4)] == [3.0] * 4
    assert set(nodes.looked_up.values()) == {1} and set(nodes.asked.values()) == {4}


def test_an_actor_that_is_late_is_waited_for_once_and_its_answer_counts_when_it_comes() -> None:
    nodes = Nodes("a", "b")
    nodes.silent = {"b"}
    assert [nodes.step(), nodes.step()] == [1.0, 1.0]
    assert nodes.asked["b"] == 1
    nodes.silent = set()
    assert [nodes.step(), nodes.step()] == [2.0, 2.0]


def test_a_dead_actor_is_looked_up_again_as_a_successor_has_its_name() -> None:
    nodes = Nodes("a", "b")
    nodes.dead = {"b"}
    assert nodes.step() == 1.0
    assert nodes.step() == 1.0 and nodes.looked_up == {"a": 1, "b": 2}
    nodes.dead = set()
    assert nodes.step() == 2.0 and nodes.looked_up == {"a": 1, "b": 3}


def test_nodes_that_are_not_there_yet_are_listed_at_a_later_step() -> None:
    nodes = Nodes()
    assert nodes.step() == 0.0
    nodes.names = ["a"]
    assert nodes.step() == 1.0
