"""Checks of the Ray nodes that a run has started or joined: they must have the resources that verl will request.

A shortage is an error here, before anything of the run is started; verl would wait for it. A cluster that a run joins
may still grow, within `placement_limit_s`. Resources that another job holds count as available: for these a run waits
later, within `placement_limit_s` again (`verl_compat.repairs.wait_for_devices`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from omegaconf import DictConfig

from codedance_verl.cluster.remote_call import answer, call_on
from codedance_verl.errors import UserError
from codedance_verl.preflight import attention
from codedance_verl.preflight.layout import Layout
from codedance_verl.preflight.report import at, joins_cluster
from codedance_verl.preflight.settings import ROLLOUT, number
from codedance_verl.sandbox.placement import RayNode

CPUS_A_GPU = 3
"""CPUs a GPU of verl's placement groups (`ResourcePoolManager.max_colocate_count`): actor, rollout, reward."""
CPUS_A_GPU_APART = 2
"""CPUs a GPU of a vLLM engine on devices of its own (`RolloutReplica.init_standalone`)."""
CPUS_BESIDE = 2
"""CPUs of the cluster beside groups: the transfer queue's controller, and one free whenever an actor is placed."""
BACKEND = "transfer_queue.backend.storage_backend"
UNITS = "transfer_queue.backend.SimpleStorage.num_data_storage_units"
NUM_CPUS = "ray_kwargs.ray_init.num_cpus"
POLL_SECONDS = 5.0
ANSWER_SECONDS = 240.0
"""Wait for a node's import of flash-attn, above `attention.IMPORT_SECONDS`."""


@dataclass(frozen=True)
class Group:
    """Placement group of verl that must be on one node.

    Attributes:
        gpus: its devices.
        cpus_a_gpu: CPUs that verl requests with each of them.
        asked: the setting it comes from, as KEY=VALUE.
    """

    gpus: int
    cpus_a_gpu: int
    asked: str

    @property
    def cpus(self) -> int:
        return self.gpus * self.cpus_a_gpu


def find_room(
    config: DictConfig,
    nodes: Callable[[], Sequence[RayNode]],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Checks the nodes as `check_room` does; a cluster that the run joins has `placement_limit_s` to grow.

    Args:
        config: of the run; without a `placement_limit_s` it waits for as long as it takes.
        nodes: gives the living nodes of the moment.

    Raises:
        UserError: there is too little, or still is after that time.
    """
    limit_s, started, announced = config.placement_limit_s, clock(), False
    while True:
        try:
            return check_room(config, nodes())
        except UserError as error:
            if not joins_cluster(config):  # a Ray of the run's own has all it will ever have
                raise
            if limit_s is not None and clock() - started >= limit_s:
                raise UserError(f"{error} (waited for placement_limit_s={limit_s:g})") from None
            if not announced:
                bound = "without a limit" if limit_s is None else f"for up to placement_limit_s={limit_s:g} seconds"
                print(f"waiting {bound} for the cluster to grow: {error}", flush=True)
            announced = True
        sleep(POLL_SECONDS)


def check_room(config: DictConfig, nodes: Sequence[RayNode]) -> None:
    """Compares the resources that verl will request with all that the nodes have.

    Raises:
        UserError: a group of devices, or the storage units of a node, fit nowhere; names the key, what it takes, and
            what the nodes have.
    """
    # largest groups first, each into the fullest node that holds it (best-fit decreasing bin packing)
    units, wanted = _units(config), sorted(groups(config), key=lambda group: (-group.gpus, -group.cpus))
    cure = _cure(config, sum(group.cpus for group in wanted) + units + CPUS_BESIDE)
    left = _beside_the_queue(nodes, units, cure)
    for group in wanted:
        fitting = [node for node in nodes if left[node.node_id].holds(group)]
        if not fitting:
            raise UserError(_line(group, nodes, units, cure))
        best = min(fitting, key=lambda node: (left[node.node_id].gpus, left[node.node_id].cpus))
        left[best.node_id].take(group)
    if nodes and sum(room.cpus for room in left.values()) < CPUS_BESIDE:
        asked = f"{UNITS}={units}" if joins_cluster(config) else f"{NUM_CPUS}={at(config, NUM_CPUS)}"
        raise UserError(
            f"{asked}: the nodes have {sum(node.resources.get('CPU', 0) for node in nodes):g} CPUs for Ray, of which "
            f"devices take {sum(group.cpus for group in wanted)} and storage units ({UNITS}) {units}; {CPUS_BESIDE} "
            f"more are needed for what is placed beside them; {cure}"
        )


def groups(config: DictConfig) -> Iterator[Group]:
    """Yields the placement groups of verl: one a node of the actor, and those of vLLM engines on their own devices.

    An engine has a group, or one on each node where its node of rollouts has fewer devices than it needs. verl lets Ray
    spread such a group (`PACK`), yet starts the engine on the node of its first device, with the numbers of them all
    (`vLLMReplica.launch_servers`): so it must be on one node.
    """
    layout, key = Layout.of(config), "trainer.n_gpus_per_node"
    yield from [Group(layout.per_node, CPUS_A_GPU, f"{key}={layout.per_node}")] * layout.nodes
    if layout.separate:
        key = f"{ROLLOUT}.n_gpus_per_node"
        per_node = number(config, key)
        gpus = min(per_node, layout.tensor_parallel)
        yield from [Group(gpus, CPUS_A_GPU_APART, f"{key}={per_node}")] * (layout.rollout_devices // gpus)


@dataclass
class _Left:
    """Resources of a node that no group has taken yet."""

    gpus: float
    cpus: float

    def holds(self, group: Group) -> bool:
        return self.gpus >= group.gpus and self.cpus >= group.cpus

    def take(self, group: Group) -> None:
        self.gpus, self.cpus = self.gpus - group.gpus, self.cpus - group.cpus


def _units(config: DictConfig) -> int:
    """Returns the number of storage units, a CPU each; only the backend `SimpleStorage` is made of them."""
    return int(at(config, UNITS) or 0) if at(config, BACKEND) in (None, "SimpleStorage") else 0


def _beside_the_queue(nodes: Sequence[RayNode], units: int, cure: str) -> dict[str, _Left]:
    """Returns the rest of each node by id, less storage units: they go in turn to nodes with GPUs, ordered by id.

    Raises:
        UserError: a node has fewer CPUs than units; they are bound to it, and would wait for ever.
    """
    left = {node.node_id: _Left(node.resources.get("GPU", 0), node.resources.get("CPU", 0)) for node in nodes}
    with_gpus = sorted(node_id for node_id, room in left.items() if room.gpus > 0)
    for unit in range(units if with_gpus else 0):
        left[with_gpus[unit % len(with_gpus)]].cpus -= 1
    for node in nodes:
        if (cpus := left[node.node_id].cpus) < 0:
            has = node.resources.get("CPU", 0)
            raise UserError(
                f"{UNITS}={units}: {has - cpus:g} of these storage units, a CPU each, come to node {node.address}, "
                f"which has {has:g} CPUs for Ray; they go in turn to every node with GPUs; {cure}"
            )
    return left


def _cure(config: DictConfig, cpus: int) -> str:
    """Returns the cure of a shortage; `cpus` is the need of a Ray of the run's own, all on one node."""
    if joins_cluster(config):
        return "start the nodes with more (`ray start --num-cpus`, a pod's resources), or ask for fewer devices"
    return f"set {NUM_CPUS}={cpus} or more, or ask for fewer devices"


def _line(group: Group, nodes: Sequence[RayNode], units: int, cure: str) -> str:
    shown = [
        f"{node.address} {node.resources.get('GPU', 0):g} GPUs and {node.resources.get('CPU', 0):g} CPUs"
        for node in sorted(nodes, key=lambda node: node.address)
        if node.resources.get("GPU", 0)
    ]
    rest = f" and {len(shown) - 8} more" if len(shown) > 8 else ""
    have = f"the nodes have: {', '.join(shown[:8])}{rest}" if shown else f"none of {len(nodes)} nodes has a GPU"
    return (
        f"{group.asked}: no node has room for {group.gpus} GPUs and {group.cpus} CPUs (verl takes {group.cpus_a_gpu} a "
        f"GPU) beside other groups and {units} storage units of a CPU each ({UNITS}); {have}; {cure}"
    )


def check_flash_attention(config: DictConfig, nodes: Sequence[RayNode]) -> None:
    """Checks that every node with GPUs can import flash-attn where the configuration needs it.

    Raises:
        UserError: one cannot, or does not answer; names the node and the cure.
    """
    if at(config, "trainer.device") != "cuda" or not attention.asked_for(config):
        return
    # all nodes import at the same time
    asked = [(node, call_on(node, attention.missing)) for node in nodes if node.resources.get("GPU", 0)]
    for node, reference in asked:
        if reason := answer(node, reference, ANSWER_SECONDS):
            key, value = next(iter(attention.asked_for(config).items()))
            raise UserError(
                f"{key}={value}: needs flash-attn, which node {node.address} lacks ({reason}); {attention.cure()}"
            )
