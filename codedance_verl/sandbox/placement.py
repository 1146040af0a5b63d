"""Choice of the Ray nodes that run interpreters.

By default every node of the cluster that can runs some. With `sandbox.node_resource` it is the nodes that were started
with this custom resource (`ray start --resources='{"sandbox": 1}'`), GPU or not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import ray

from codedance_verl.errors import UserError
from codedance_verl.sandbox.config import SandboxConfig

NAMESPACE = "codedance"


@dataclass(frozen=True)
class RayNode:
    """A living node of the cluster: Ray's id of it, and its IP address."""

    node_id: str
    address: str
    resources: Mapping[str, float]


def living_nodes() -> list[RayNode]:
    """Returns the nodes of the cluster that are alive, the head among them."""
    return [
        RayNode(node["NodeID"], node["NodeManagerAddress"], node["Resources"]) for node in ray.nodes() if node["Alive"]
    ]


def sandbox_nodes(config: SandboxConfig, nodes: Iterable[RayNode] | None = None) -> list[RayNode]:
    """Returns the living nodes that may run interpreters.

    Raises:
        UserError: none has the resource that `sandbox.node_resource` names.
    """
    nodes = living_nodes() if nodes is None else list(nodes)
    wanted = config.node_resource
    found = [node for node in nodes if not wanted or node.resources.get(wanted, 0) > 0]
    if not found:
        raise UserError(
            f"sandbox.node_resource={wanted!r}: none of the cluster's {len(nodes)} nodes has this resource; start one "
            f"with `ray start --resources='{{\"{wanted}\": 1}}'`, or leave it empty for interpreters on every node"
        )
    return found
