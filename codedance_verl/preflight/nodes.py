"""Check of the nodes of the Ray that a run has started or joined: they must have what verl will ask them for.

What is short is told here, before anything of the run is started; verl would wait for it. Resources that another job
holds count as there: for these a run waits, within `placement_limit_s`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from omegaconf import DictConfig

from codedance_verl.cluster.calls import answer, call_on
from codedance_verl.errors import UserError
from codedance_verl.preflight import attention
from codedance_verl.preflight.layout import Layout
from codedance_verl.preflight.report import at
from codedance_verl.preflight.settings import ROLLOUT, number
from codedance_verl.sandbox.placement import RayNode

CPUS_A_GPU = 3
"""Of verl's placement groups: `ResourcePoolManager.max_colocate_count`, a process each for actor, rollout, reward."""
CPUS_BESIDE = 2
"""Of the cluster: one for the transfer queue's controller, one that must be free whenever an actor is placed."""
UNITS = "transfer_queue.backend.SimpleStorage.num_data_storage_units"
ANSWER_SECONDS = 240.0


@dataclass(frozen=True)
class Group:
    """A placement group of verl: `gpus` devices on one node; `key` is the setting that asks for so many."""

    gpus: int
    key: str

    @property
    def cpus(self) -> int:
        return self.gpus * CPUS_A_GPU


def check_room(config: DictConfig, nodes: Sequence[RayNode]) -> None:
    """Holds what verl will ask for against all that the nodes have.

    Raises:
        UserError: a group of devices fits on no node; names its key, what it takes, and what the nodes have.
    """
    units = int(at(config, UNITS) or 0)
    left = _beside_the_queue(nodes, units)
    for group in sorted(groups(config), key=lambda group: -group.gpus):
        fitting = [node for node in nodes if left[node.node_id].holds(group)]
        if not fitting:
            raise UserError(_line(group, nodes, left, units))
        best = min(fitting, key=lambda node: (left[node.node_id].gpus, left[node.node_id].cpus))
        left[best.node_id].take(group)
    if nodes and sum(room.cpus for room in left.values()) < CPUS_BESIDE:
        key = "ray_kwargs.ray_init.num_cpus"
        raise UserError(
            f"{key}={at(config, key)}: the nodes have {sum(node.resources.get('CPU', 0) for node in nodes):g} CPUs for "
            f"Ray, which devices ({CPUS_A_GPU} a GPU) and {units} storage units ({UNITS}) take up; {CPUS_BESIDE} more "
            "are needed for what is placed beside them"
        )


def groups(config: DictConfig) -> Iterator[Group]:
    """The placement groups that verl asks for: one a node of the actor, and one a node of rollouts that stand apart."""
    layout = Layout.of(config)
    yield from [Group(layout.per_node, "trainer.n_gpus_per_node")] * layout.nodes
    if layout.separate:
        key = f"{ROLLOUT}.n_gpus_per_node"
        yield from [Group(number(config, key), key)] * number(config, f"{ROLLOUT}.nnodes")


@dataclass
class _Left:
    """What groups may still take of a node."""

    gpus: float
    cpus: float

    def holds(self, group: Group) -> bool:
        return self.gpus >= group.gpus and self.cpus >= group.cpus

    def take(self, group: Group) -> None:
        self.gpus, self.cpus = self.gpus - group.gpus, self.cpus - group.cpus


def _beside_the_queue(nodes: Sequence[RayNode], units: int) -> dict[str, _Left]:
    """What is left of each node by id; storage units go in turn to the nodes with GPUs, in the order of their ids."""
    left = {node.node_id: _Left(node.resources.get("GPU", 0), node.resources.get("CPU", 0)) for node in nodes}
    with_gpus = sorted(node_id for node_id, room in left.items() if room.gpus > 0)
    for unit in range(units if with_gpus else 0):
        left[with_gpus[unit % len(with_gpus)]].cpus -= 1
    return left


def _line(group: Group, nodes: Sequence[RayNode], left: dict[str, _Left], units: int) -> str:
    shown = [
        f"{node.address} {node.resources.get('GPU', 0):g} GPUs and {node.resources.get('CPU', 0):g} CPUs"
        for node in sorted(nodes, key=lambda node: node.address)
        if node.resources.get("GPU", 0)
    ]
    rest = f" and {len(shown) - 8} more" if len(shown) > 8 else ""
    have = f"the nodes have: {', '.join(shown[:8])}{rest}" if shown else f"none of {len(nodes)} nodes has a GPU"
    return (
        f"{group.key}={group.gpus}: no node has room for {group.gpus} GPUs and {group.cpus} CPUs (verl takes "
        f"{CPUS_A_GPU} a GPU) beside other groups and {units} storage units of a CPU each ({UNITS}); {have}; start "
        "them with more (`ray start --num-cpus`, a pod's resources), or ask for fewer devices"
    )


def check_flash_attention(config: DictConfig, nodes: Sequence[RayNode]) -> None:
    """Asks every node with GPUs whether it can import what the configuration asks for.

    Raises:
        UserError: one cannot, or does not answer; names the node and the cure.
    """
    if at(config, "trainer.device") != "cuda" or not attention.asked_for(config):
        return
    asked = [(node, call_on(node, attention.missing)) for node in nodes if node.resources.get("GPU", 0)]
    for node, reference in asked:
        if reason := answer(node, reference, ANSWER_SECONDS):
            key, value = next(iter(attention.asked_for(config).items()))
            raise UserError(
                f"{key}={value}: needs flash-attn, which node {node.address} lacks ({reason}); {attention.cure()}"
            )
