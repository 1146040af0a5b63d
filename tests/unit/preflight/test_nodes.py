"""What verl asks the nodes for is held against what they have before anything of a run starts."""

from __future__ import annotations

import dataclasses
import re

import pytest
from omegaconf import DictConfig
from verl.single_controller.ray.base import ResourcePoolManager

from codedance_verl.config import compose_config
from codedance_verl.errors import UserError
from codedance_verl.preflight import attention, nodes
from codedance_verl.preflight.nodes import CPUS_A_GPU, UNITS, check_flash_attention, check_room
from codedance_verl.sandbox.placement import RayNode


def _config(*overrides: str) -> DictConfig:
    return compose_config("train", ["hardware=2x8gpu", "run_dir=/tmp/run", f"{UNITS}=8", *overrides])


def _nodes(*sizes: tuple[float, float]) -> list[RayNode]:
    """Nodes of so many GPUs and CPUs, at 10.0.0.1 and so on."""
    return [
        RayNode(f"id{index}", f"10.0.0.{index}", {"GPU": gpus, "CPU": cpus} if gpus else {"CPU": cpus})
        for index, (gpus, cpus) in enumerate(sizes, start=1)
    ]


def test_verl_takes_as_many_cpus_a_gpu_as_are_counted_here() -> None:
    (found,) = (field for field in dataclasses.fields(ResourcePoolManager) if field.name == "max_colocate_count")
    assert found.default == CPUS_A_GPU


@pytest.mark.parametrize(
    "sizes",
    [
        [(0, 0), (8, 32), (8, 32)],
        [(8, 30), (8, 28)],
        [(16, 64)],  # both groups on one node
        [(4, 200), (8, 40), (8, 40), (0, 8)],
    ],
    ids=["as the files say", "just enough", "one large node", "others beside"],
)
def test_nodes_with_three_cpus_a_gpu_and_some_beside_have_room(sizes: list[tuple[float, float]]) -> None:
    check_room(_config(), _nodes(*sizes))


@pytest.mark.parametrize(
    ("sizes", "told"),
    [
        (
            [(8, 16), (8, 16)],
            r"^trainer\.n_gpus_per_node=8: no node has room for 8 GPUs and 24 CPUs .*10\.0\.0\.1 8 GPUs",
        ),
        ([(8, 64)], r"^trainer\.n_gpus_per_node=8: no node has room"),
        ([(4, 64)] * 4, r"^trainer\.n_gpus_per_node=8: no node has room for 8 GPUs"),
        ([(0, 64)], r"none of 1 nodes has a GPU"),
        ([(8, 27), (8, 64)], r"8 storage units of a CPU each"),
        ([(8, 28), (8, 28)], r"56 CPUs for Ray.* 2 more"),
    ],
    ids=["16 CPUs", "one node", "GPUs apart", "no GPUs", "storage units", "nothing beside"],
)
def test_what_no_node_has_room_for_is_told_with_what_they_have(sizes: list[tuple[float, float]], told: str) -> None:
    with pytest.raises(UserError, match=told) as refused:
        check_room(_config(), _nodes(*sizes))
    assert len(str(refused.value).splitlines()) == 1


def test_rollouts_on_devices_of_their_own_need_room_too() -> None:
    apart = ["trainer=separate_async", "trainer.nnodes=1", "actor_rollout_ref.rollout.n_gpus_per_node=8"]
    check_room(_config(*apart), _nodes((8, 32), (8, 32)))
    with pytest.raises(UserError, match=r"^actor_rollout_ref\.rollout\.n_gpus_per_node=8: no node has room"):
        check_room(_config(*apart), _nodes((8, 32), (4, 32)))


def test_the_cpu_demo_has_room_in_the_ray_that_it_starts() -> None:
    config = compose_config("train", ["hardware=cpu", "recipe=cpu_demo", "run_dir=/tmp/run"])
    ray_init = config.ray_kwargs.ray_init
    check_room(config, _nodes((ray_init.num_gpus, ray_init.num_cpus)))


def test_a_node_without_flash_attention_is_named_with_a_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"10.0.0.2": "", "10.0.0.3": "ModuleNotFoundError: No module named 'flash_attn'"}
    asked: list[str] = []

    def call_on(node: RayNode, function: object) -> None:
        assert function is attention.missing
        asked.append(node.address)

    monkeypatch.setattr(nodes, "call_on", call_on)
    monkeypatch.setattr(nodes, "answer", lambda node, *_: answers[node.address])
    there = _nodes((0, 4), (8, 32), (8, 32))
    with pytest.raises(UserError, match=r"which node 10\.0\.0\.3 lacks \(ModuleNotFoundError") as refused:
        check_flash_attention(_config(), there)
    cure = re.search(r"without it set (.*)$", str(refused.value))
    assert cure is not None and asked == ["10.0.0.2", "10.0.0.3"]
    check_flash_attention(_config(*cure.group(1).split()), there)
    assert len(asked) == 2, "whoever needs none is not asked"
