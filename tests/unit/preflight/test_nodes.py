"""What verl asks the nodes for is held against what they have before anything of a run starts."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Sequence

import pytest
from omegaconf import DictConfig
from verl.single_controller.ray.base import RayWorkerGroup, ResourcePoolManager
from verl.workers.rollout.replica import RolloutReplica

from codedance_verl.config.compose import compose_config
from codedance_verl.errors import UserError
from codedance_verl.preflight import attention, nodes
from codedance_verl.preflight.nodes import (
    BACKEND,
    CPUS_A_GPU,
    CPUS_A_GPU_APART,
    POLL_SECONDS,
    UNITS,
    check_flash_attention,
    check_room,
    find_room,
)
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


def test_an_engine_apart_has_a_group_a_node_of_as_many_cpus_a_gpu_as_are_counted_here() -> None:
    """And its devices must be on that node, though verl lets Ray spread them."""
    source = inspect.getsource(RolloutReplica.init_standalone)
    assert "[self.gpus_per_replica_node] * self.nnodes" in source
    assert f"max_colocate_count={CPUS_A_GPU_APART}," in source and "bin_pack=False" in source
    assert 'strategy = "PACK"' in inspect.getsource(RayWorkerGroup._init_with_resource_pool)
    assert "min(gpus_per_node, self.world_size)" in inspect.getsource(RolloutReplica.__init__)


@pytest.mark.parametrize(
    "sizes",
    [
        [(0, 0), (8, 32), (8, 32)],
        [(8, 30), (8, 28)],
        [(8, 29), (8, 29)],
        [(16, 64)],  # both groups on one node
        [(4, 200), (8, 40), (8, 40), (0, 8)],
    ],
    ids=["as the files say", "just enough", "just enough of each", "one large node", "others beside"],
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
        (
            [(8, 60), (8, 60), (1, 1)],
            r"num_data_storage_units=8: 2 of these storage units, .* come to node 10\.0\.0\.3, which has 1 CPUs",
        ),
    ],
    ids=["16 CPUs", "one node", "GPUs apart", "no GPUs", "storage units", "nothing beside", "a node of units alone"],
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


@pytest.mark.parametrize(
    "sizes", [[(8, 30), (8, 20)], [(8, 32), (4, 16), (4, 16)]], ids=["one node for rollouts", "two nodes for rollouts"]
)
def test_rollouts_apart_need_two_cpus_a_gpu_and_one_node_an_engine(sizes: list[tuple[float, float]]) -> None:
    check_room(_config("recipe=codedance_7b_async"), _nodes(*sizes))


def test_an_engine_apart_must_be_on_one_node() -> None:
    config = _config("recipe=codedance_7b_async", "actor_rollout_ref.rollout.tensor_model_parallel_size=2")
    check_room(config, _nodes((8, 32), (4, 16), (4, 16)))
    with pytest.raises(UserError, match=r"n_gpus_per_node=8: no node has room for 2 GPUs and 4 CPUs .*2 a GPU"):
        check_room(config, _nodes((8, 32), *[(1, 16)] * 8))
    larger = _config("recipe=codedance_7b_async", "actor_rollout_ref.rollout.tensor_model_parallel_size=4")
    larger.actor_rollout_ref.rollout.n_gpus_per_node, larger.actor_rollout_ref.rollout.nnodes = 2, 4
    check_room(larger, _nodes((8, 40), *[(2, 16)] * 4))  # an engine on two nodes


def test_another_storage_backend_has_no_units() -> None:
    check_room(_config(f"{BACKEND}=MooncakeStore"), _nodes((8, 26), (8, 24)))


def test_a_cure_fits_the_ray_that_it_is_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """`ray start` is nothing to a run that starts its own Ray, and `num_cpus` nothing to one that joins."""
    for sizes in [(8, 20)], [(8, 29)], [(8, 3)]:
        config, there = _config("hardware=8xgpu", f"{UNITS}=4"), _nodes(*sizes)
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
        with pytest.raises(UserError, match=r"; set ray_kwargs\.ray_init\.num_cpus=30 or more, or ask"):
            check_room(config, there)
        monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
        with pytest.raises(UserError, match=r"^[^;]*.*; start the nodes with more \(`ray start --num-cpus`") as told:
            check_room(config, there)
        assert "ray_init" not in str(told.value)
    monkeypatch.delenv("RAY_ADDRESS")
    check_room(config, _nodes((8, 30)))


class Cluster:
    """One that grows: what it has after each look, on a clock that `sleep` moves."""

    def __init__(self, *looks: Sequence[RayNode]) -> None:
        self._looks = list(looks)
        self.now = 0.0

    def nodes(self) -> Sequence[RayNode]:
        return self._looks.pop(0) if len(self._looks) > 1 else self._looks[0]

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_a_run_that_joins_waits_for_a_cluster_that_still_grows(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    cluster = Cluster(_nodes((0, 0)), _nodes((8, 32)), _nodes((8, 32), (8, 32)))
    find_room(_config(), cluster.nodes, cluster.clock, cluster.sleep)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("waiting for up to placement_limit_s=600 seconds for the cluster to grow: trainer.n_gpus")
    assert cluster.now == 2 * POLL_SECONDS


def test_a_cluster_that_does_not_grow_ends_the_run_after_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    cluster = Cluster(_nodes((8, 32)))
    with pytest.raises(UserError, match=r"no node has room .*\(waited for placement_limit_s=60\)$"):
        find_room(_config("placement_limit_s=60"), cluster.nodes, cluster.clock, cluster.sleep)
    assert cluster.now == 60


def test_a_ray_of_the_runs_own_does_not_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    cluster = Cluster(_nodes((8, 16)), _nodes((16, 64)))
    with pytest.raises(UserError, match="no node has room"):
        find_room(_config(), cluster.nodes, cluster.clock, cluster.sleep)


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
