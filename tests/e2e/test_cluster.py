"""Three Ray nodes in network namespaces of their own: a job with token authentication, and the loss of nodes.

One cluster and two runs for all of it. Node 1 is the head, has one (logical) GPU and trains; node 2 has the other and
rolls out; node 3 has neither CPUs nor GPUs, runs interpreters only, and those in an engine of its own.
"""

from __future__ import annotations

import contextlib
import math
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from docker import DockerClient

from codedance_verl.runtime.run_folder import last_step
from codedance_verl.sandbox.docker.image import image_tag
from codedance_verl.sandbox.docker.reaper import Owner, list_containers, owner_of
from tests.e2e import ray_cluster
from tests.e2e.conftest import REPOSITORY, ColdStart
from tests.e2e.ray_cluster import Cluster, resources
from tests.e2e.runs import exit_code, metrics_of, rollout_files, rollouts_in, wait_for_run, wait_until
from tests.required import lacks

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.e2e, pytest.mark.timeout(2400)]

RUN_SECONDS = 800.0
LOSS_SECONDS = 240.0
"""From the loss of a node until the run has ended; Ray takes up to half a minute to count a node out."""

SMALL = (
    "recipe=cpu_demo",
    "hardware=cpu",
    "trainer=separate_async",
    "sandbox.backend=docker",
    "sandbox.containers=1",
    "sandbox.standby_containers=0",
    "data.train_batch_size=8",
    "actor_rollout_ref.rollout.n=4",
    "actor_rollout_ref.actor.ppo_mini_batch_size=8",
    "actor_rollout_ref.actor.use_kl_loss=true",
    "trainer.save_freq=1",
    "time_limit_s=780",
    # for its metrics alone: the largest and the least ratio of a token's probability in training and in rollout
    "algorithm.rollout_correction.rollout_is=token",
    "algorithm.rollout_correction.rollout_is_threshold=1000.0",
)


@pytest.fixture(scope="module")
def nodes(sandbox_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The cluster; node 2 does not see the folder `unshared`."""
    if reason := ray_cluster.why_not():
        lacks(f"network namespaces: {reason}")
    with ray_cluster.cluster() as made:
        (made.folder / "unshared").mkdir()
        made.start_node(1, ["--num-cpus=8", "--num-gpus=1"])
        rolls_out = ["--num-cpus=8", "--num-gpus=1", resources(sandbox=1)]
        made.start_node(2, rolls_out, hidden=[made.folder / "unshared"], ready=False)
        made.start_node(3, ["--num-cpus=0", "--num-gpus=0", resources(sandbox=1)], own_engine=True, ready=False)
        made.wait_until_joined(2, 3)
        yield made


def _submit(nodes: Cluster, arguments: list[str], log: Path) -> subprocess.Popen[bytes]:
    """`ray job submit --working-dir .` of a training run, from the head node; ends with the job."""
    command = ["ray", "job", "submit", "--working-dir", ".", "--", "python", "-m", "codedance_verl.train", *arguments]
    return nodes.start(*command, log=log, folder=REPOSITORY, environment={"RAY_ADDRESS": nodes.dashboard})


def _sandboxes(nodes: Cluster, engine: DockerClient) -> tuple[int, int]:
    """How many nodes run containers in the machine's engine, and how many in that of node 3.

    A node has a process namespace of its own, and a container's label names its owner's.
    """
    with contextlib.closing(DockerClient(base_url=nodes.engine_address(3))) as third:
        return len(_owners(engine)), len(_owners(third))


def _owners(engine: DockerClient) -> set[str]:
    owners = [owner_of(container) for container in list_containers(engine)]
    return {owner.namespace for owner in owners if owner is not None} - {Owner.current().namespace}


def test_nothing_is_to_be_had_without_the_token(nodes: Cluster) -> None:
    without = {"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN_PATH": "/dev/null", "RAY_ADDRESS": nodes.dashboard}
    refused = nodes.run("ray", "job", "submit", "--", "true", environment=without, at=3)
    assert refused.returncode != 0 and "Missing authentication token" in refused.stderr
    wrong = {"RAY_AUTH_TOKEN": "0" * 32, "RAY_ADDRESS": nodes.dashboard}
    refused = nodes.run("ray", "job", "submit", "--", "true", environment=wrong, at=3)
    assert refused.returncode != 0 and "Invalid authentication token" in refused.stderr

    stranger = nodes.start_node(4, ["--num-cpus=1"], environment=without, ready=False)
    assert stranger.process.wait(timeout=ray_cluster.START_SECONDS) != 0
    assert "Authentication token is missing or incorrect" in stranger.log.read_text(errors="replace")


@pytest.fixture(scope="module")
def prepared(nodes: Cluster) -> list[str]:
    """What `codedance cluster prepare` said."""
    prepare = ("python", "-m", "codedance_verl.cli", "cluster", "prepare")  # the shipped code, installed or not
    done = nodes.run(*prepare, timeout_s=240, folder=REPOSITORY)
    assert done.returncode == 0
    return done.stdout.splitlines()


def test_the_image_is_shipped_to_the_node_without_it(
    nodes: Cluster, prepared: list[str], docker_engine: DockerClient
) -> None:
    digest = docker_engine.images.get(image_tag()).id
    assert any(line.endswith(f"sending {image_tag()} to {nodes.nodes[3].address} ...") for line in prepared)
    assert {f"{nodes.nodes[number].address}: {image_tag()} {digest}" for number in (1, 2, 3)} <= set(prepared)
    with contextlib.closing(DockerClient(base_url=nodes.engine_address(3))) as third:
        assert third.images.get(image_tag()).id == digest


def test_a_run_in_a_folder_that_is_not_shared_says_so_at_its_start(
    nodes: Cluster, cold_start: ColdStart, tmp_path: Path
) -> None:
    unshared, log = nodes.folder / "unshared" / "run", tmp_path / "job.log"
    job = _submit(nodes, [*SMALL, *cold_start.rl(unshared)], log)
    assert exit_code(job, log, RUN_SECONDS) != 0
    (error,) = {line for line in log.read_text().splitlines() if line.startswith("error: ")}
    address = nodes.nodes[2].address
    assert error.startswith(f"error: run_dir={unshared}: ") and f"on node {address}" in error
    assert not list(unshared.glob(".cluster-probe*"))


@pytest.fixture(scope="module")
def first_run(
    nodes: Cluster,
    prepared: list[str],
    cold_start: ColdStart,
    docker_engine: DockerClient,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The folder of a run of two steps that was submitted as a job and has succeeded."""
    folder = tmp_path_factory.mktemp("cluster")
    run_dir, log = folder / "run", folder / "first.log"
    job = _submit(nodes, [*SMALL, *cold_start.rl(run_dir), "trainer.total_training_steps=2"], log)
    wait_for_run(
        lambda: _sandboxes(nodes, docker_engine) == (2, 1), job, log, RUN_SECONDS, "interpreters on every node"
    )
    assert exit_code(job, log, RUN_SECONDS) == 0, log.read_text(errors="replace")[-6000:]
    assert "succeeded" in log.read_text()
    return run_dir


def test_a_job_trains_on_two_nodes_with_weights_that_arrive_bit_for_bit(first_run: Path) -> None:
    metrics = metrics_of(first_run)
    assert sorted(metrics) == [1, 2] and last_step(first_run) == 2
    assert (first_run / "model" / "config.json").is_file()
    assert "actor/kl_loss" in metrics[2], "the reference model took no part"
    # in the first step the rollout's weights are the trainer's, later an asynchronous rollout lags behind
    assert abs(math.log(metrics[1]["rollout_corr/rollout_is_max"])) < 1e-3
    assert abs(math.log(metrics[1]["rollout_corr/rollout_is_min"])) < 1e-3
    # a step's metrics have the transfer behind the step before it
    assert metrics[2]["weight_transfer/bit_equal"] == 1
    assert metrics[2]["weight_transfer/mib"] > 1
    executions = [turn["execution"] for rollout in rollouts_in(rollout_files(first_run)) for turn in rollout["turns"]]
    assert any(execution and execution["status"] == "ok" for execution in executions)


def test_the_loss_of_interpreters_costs_their_sessions_and_that_of_a_worker_ends_the_run_to_be_resumed(
    nodes: Cluster, first_run: Path, cold_start: ColdStart, docker_engine: DockerClient, tmp_path: Path
) -> None:
    """The same run goes on, with interpreters on nodes 2 and 3; then these two are lost, one after the other."""
    log = tmp_path / "second.log"
    more = (
        "trainer.total_training_steps=50",
        "sandbox.node_resource=sandbox",
        "actor_rollout_ref.rollout.agent.num_workers=2",  # on nodes 1 and 2; that of node 1 has no interpreters there
    )
    job = _submit(nodes, [*SMALL, *cold_start.rl(first_run), *more], log)
    before = rollout_files(first_run)
    wait_for_run(lambda: bool(rollout_files(first_run) - before), job, log, RUN_SECONDS, "rollouts")
    assert _sandboxes(nodes, docker_engine) == (1, 1)
    nodes.nodes[3].kill()
    done = max(metrics_of(first_run))
    wait_for_run(lambda: max(metrics_of(first_run)) >= done + 2, job, log, LOSS_SECONDS, "steps without node 3")

    nodes.nodes[2].kill()
    assert exit_code(job, log, LOSS_SECONDS) != 0
    (error,) = {line for line in log.read_text().splitlines() if line.startswith("error: ")}
    assert f"node {nodes.nodes[2].address} of the cluster was lost" in error
    assert "start the run again to resume from the last checkpoint" in error
    step = last_step(first_run)
    assert step > 2 and (first_run / "checkpoints" / f"global_step_{step}" / "actor" / "huggingface").is_dir()
    wait_until(lambda: not _owners(docker_engine), 30, "removal of the lost run's containers")
