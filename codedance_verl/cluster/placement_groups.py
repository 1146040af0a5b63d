"""Watch over verl's placement groups: those that no node can take, and what each node lacks.

verl asks Ray for a placement group a node of the actor, 3 CPUs and a GPU for each device, and for one a vLLM engine
that stands apart, 2 CPUs and a GPU each (`RayResourcePool` in `single_controller/ray/base.py`, and
`workers/rollout/replica.py`). It waits for them without a limit and without a message.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import ray

from codedance_verl.sandbox.placement import RayNode, living_nodes

WAITING = ("PENDING", "RESCHEDULING")
SHOWN_NODES = 8


@dataclass(frozen=True)
class Wanted:
    """Placement group that Ray has found no room for.

    Attributes:
        group_id: Ray's id of it, hexadecimal.
        bundles: resources of each part, by name.
        one_node: all parts must be on one node (`STRICT_PACK`).
    """

    group_id: str
    bundles: Sequence[Mapping[str, float]]
    one_node: bool

    @property
    def total(self) -> Counter[str]:
        """Returns the resources of all parts together."""
        return sum((Counter(dict(bundle)) for bundle in self.bundles), Counter())

    def __str__(self) -> str:
        each = ", ".join(f"{name} {amount:g}" for name, amount in sorted(self.bundles[0].items()))
        return f"{len(self.bundles)} x {{{each}}}{' on one node' if self.one_node else ''}"


@dataclass(frozen=True)
class Room:
    """Node with its free resources."""

    node: RayNode
    free: Mapping[str, float]


class PlacementWatch:
    """Watch that ends a run whose placement groups wait for longer than `limit_s`; `watch.watched` calls `poll`."""

    def __init__(
        self,
        limit_s: float,
        waiting: Callable[[], Sequence[Wanted]] | None = None,
        rooms: Callable[[], Sequence[Room]] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit_s, self._clock = limit_s, clock
        self._waiting, self._rooms = waiting or waiting_groups, rooms or free_rooms
        self._since: dict[str, float] = {}

    def poll(self) -> str | None:
        """Returns why the run must end, once a group has waited too long: its resources, and what each node lacks."""
        now, waiting = self._clock(), {group.group_id: group for group in self._waiting()}
        # a group that found room is forgotten: when it waits again, after the loss of a node, its time starts again
        self._since = {group_id: self._since.get(group_id, now) for group_id in waiting}
        overdue = [waiting[group_id] for group_id, since in self._since.items() if now - since > self._limit_s]
        if not overdue:
            return None
        return (
            f"placement_limit_s={self._limit_s:g}: Ray found no room for {len(waiting)} group(s) of devices, such as "
            f"{overdue[0]}, in that time; {lacking(overdue[0], self._rooms())}; start the nodes with more, or ask for "
            "fewer devices (docs/clusters.md)"
        )


def lacking(wanted: Wanted, rooms: Sequence[Room]) -> str:
    """Returns what each node lacks of a group, the closest first; nodes without a needed resource are only counted."""
    if not wanted.one_node:
        free: Counter[str] = sum((Counter(dict(room.free)) for room in rooms), Counter())
        return f"all nodes together lack {_amounts(wanted.total - free)}"
    # Counter subtraction drops what is not positive, so a total of 0 means that nothing is lacking any more
    short = {room.node.address: wanted.total - Counter(dict(room.free)) for room in rooms}
    near = {
        room.node.address: short[room.node.address]
        for room in rooms
        if all(room.node.resources.get(name, 0) > 0 for name in wanted.total)
    }
    shown = sorted(near.items(), key=lambda item: (item[1].total(), item[0]))[:SHOWN_NODES]
    parts = [f"node {address} lacks {_amounts(amounts)}" for address, amounts in shown]
    if others := len(rooms) - len(shown):
        parts.append(f"{others} further node(s) lack more" if near else f"none of {others} node(s) has all of these")
    return ", ".join(parts)


def _amounts(amounts: Mapping[str, float]) -> str:
    found = [f"{amount:g} {name}" for name, amount in sorted(amounts.items()) if amount > 0]
    return " and ".join(found) or "nothing by now"


def waiting_groups() -> list[Wanted]:
    """Returns this job's placement groups that have no nodes, or have lost one. A group's id ends with its job's."""
    job = ray.get_runtime_context().get_job_id()
    return [
        Wanted(group_id, list(group["bundles"].values()), group["strategy"] == "STRICT_PACK")
        for group_id, group in ray.util.placement_group_table().items()
        if group["state"] in WAITING and group_id.endswith(job) and group["bundles"]
    ]


def free_rooms() -> list[Room]:
    """Returns every living node with its free resources."""
    free = ray._private.state.available_resources_per_node()  # as verl does, there being no public call
    return [Room(node, free.get(node.node_id, {})) for node in living_nodes()]
