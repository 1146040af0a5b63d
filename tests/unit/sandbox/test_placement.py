from __future__ import annotations

import pytest

from codedance_verl.errors import UserError
from codedance_verl.sandbox.config import SandboxConfig
from codedance_verl.sandbox.placement import RayNode, sandbox_nodes

NODES = [
    RayNode("1", "10.0.0.1", {"CPU": 8, "GPU": 1}),
    RayNode("2", "10.0.0.2", {"CPU": 8, "sandbox": 1}),
    RayNode("3", "10.0.0.3", {"sandbox": 1}),
    RayNode("4", "10.0.0.4", {"CPU": 8, "sandbox": 0}),
]


def test_every_node_may_run_interpreters_unless_some_are_named() -> None:
    assert sandbox_nodes(SandboxConfig(), NODES) == NODES
    assert sandbox_nodes(SandboxConfig(node_resource="sandbox"), NODES) == NODES[1:3]


def test_a_resource_that_no_node_has_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(UserError, match=r"sandbox\.node_resource='sandbx': none of the cluster's 4 nodes"):
        sandbox_nodes(SandboxConfig(node_resource="sandbx"), NODES)


@pytest.mark.parametrize("value", ["two words", 3])
def test_a_resource_has_a_name(value: object) -> None:
    with pytest.raises(UserError, match=r"sandbox\.node_resource"):
        SandboxConfig.from_mapping({"node_resource": value})
