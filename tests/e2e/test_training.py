"""Two RL steps with the real vLLM, FSDP, Ray and containers: colocated and apart, killed and resumed, evaluated."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from docker import DockerClient
from transformers import AutoModelForImageTextToText

from codedance_verl.sandbox.reaper import PROJECT_LABEL
from tests.e2e.conftest import REPOSITORY, ColdStart, run_main

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.e2e, pytest.mark.timeout(900)]

SMALL = (
    "recipe=cpu_demo",
    "hardware=cpu",
    "sandbox.backend=docker",
    "sandbox.containers=1",
    "data.train_batch_size=8",
    "data.val_batch_size=64",
    "actor_rollout_ref.rollout.n=4",
    "actor_rollout_ref.actor.ppo_mini_batch_size=8",
    "trainer.total_training_steps=2",
    "trainer.save_freq=1",
    "time_limit_s=380",
)


def _arguments(start: ColdStart, run_dir: Path, *more: str) -> list[str]:
    return [
        *SMALL,
        f"run_dir={run_dir}",
        f"data.train_files={start.data / 'rl_train.parquet'}",
        f"data.val_files={start.data / 'rl_val.parquet'}",
        f"actor_rollout_ref.model.path={start.model}",
        *more,
    ]


def _metrics(run_dir: Path) -> dict[int, dict[str, Any]]:
    """Metrics by step, over all starts of the run; a step that was done twice counts as done last."""
    steps: dict[int, dict[str, Any]] = {}
    for path in sorted((run_dir / "metrics").glob("*.jsonl")):
        for line in path.read_text().splitlines():
            record = json.loads(line)
            steps[record["step"]] = record["data"]
    return steps


def _rollouts(run_dir: Path, split: str) -> list[dict[str, Any]]:
    files = sorted((run_dir / "trajectories" / split).glob("*.jsonl"))
    return [json.loads(line) for path in files for line in path.read_text().splitlines()]


def _containers(engine: DockerClient) -> list[str]:
    found = engine.containers.list(all=True, filters={"label": PROJECT_LABEL}, ignore_removed=True)
    return [container.name for container in found]


def _wait(condition: Any, seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen within {seconds:g} s"
        time.sleep(0.2)


def _assert_trained(run_dir: Path) -> None:
    steps = _metrics(run_dir)
    assert sorted(steps) == [1, 2]
    for metrics in steps.values():
        assert math.isfinite(metrics["actor/pg_loss"])
        assert metrics["actor/grad_norm"] > 0
    # in the first step both groups hold the weights the run started from, later an asynchronous rollout lags behind
    assert steps[1]["training/rollout_probs_diff_max"] < 0.05
    model = AutoModelForImageTextToText.from_pretrained(run_dir / "model")
    assert sum(parameter.numel() for parameter in model.parameters()) > 100_000


def _assert_rolled_out(run_dir: Path, groups: int, size: int) -> None:
    rollouts = _rollouts(run_dir, "train")
    members: dict[tuple[int, str], set[int]] = {}
    for rollout in rollouts:
        members.setdefault((rollout["step"], rollout["group"]), set()).add(rollout["sample"])
    # an asynchronous run ends while further groups are under way
    assert sum(samples == set(range(size)) for samples in members.values()) >= groups
    executions = [turn["execution"] for rollout in rollouts for turn in rollout["turns"] if turn["execution"]]
    assert any(execution["status"] == "ok" and execution["stdout"].strip() for execution in executions)
    for rollout in rollouts:
        for image in rollout["input_images"]:
            assert (run_dir / "trajectories" / image["path"]).is_file()


def test_a_killed_run_resumes_and_leaves_no_container(
    cold_start: ColdStart, sandbox_image: str, docker_engine: DockerClient, tmp_path: Path
) -> None:
    run_dir = tmp_path / "sync"
    command = [sys.executable, "-m", "codedance_verl.train", *_arguments(cold_start, run_dir)]
    with (tmp_path / "first.log").open("w") as log:
        first = subprocess.Popen(command, cwd=REPOSITORY, stdout=log, stderr=subprocess.STDOUT)
    try:
        checkpoint = run_dir / "checkpoints" / "latest_checkpointed_iteration.txt"
        _wait(lambda: checkpoint.is_file() or first.poll() is not None, 380, "the first checkpoint")
        assert first.poll() is None, (tmp_path / "first.log").read_text()[-3000:]
        assert _containers(docker_engine), "the run uses no container"
    finally:
        os.kill(first.pid, signal.SIGKILL)
        first.wait(timeout=30)
    _wait(lambda: not _containers(docker_engine), 30, "removal of the dead run's containers")

    assert run_main("codedance_verl.train", *_arguments(cold_start, run_dir)).returncode == 0
    _assert_trained(run_dir)
    _assert_rolled_out(run_dir, groups=16, size=4)
    assert _containers(docker_engine) == []


def test_a_vllm_group_apart_from_the_actor_group(
    cold_start: ColdStart, sandbox_image: str, docker_engine: DockerClient, tmp_path: Path
) -> None:
    run_dir = tmp_path / "separate"
    arguments = _arguments(cold_start, run_dir, "mode=separate_async", "actor_rollout_ref.actor.use_kl_loss=true")
    assert run_main("codedance_verl.train", *arguments).returncode == 0
    _assert_trained(run_dir)
    _assert_rolled_out(run_dir, groups=16, size=4)
    assert "actor/kl_loss" in _metrics(run_dir)[2], "the reference model took no part"
    assert _containers(docker_engine) == []


def test_evaluation_uses_the_environment_of_training(
    cold_start: ColdStart, sandbox_image: str, docker_engine: DockerClient, tmp_path: Path
) -> None:
    run_dir = tmp_path / "eval"
    arguments = [
        *(item for item in SMALL if not item.startswith("trainer.")),
        f"run_dir={run_dir}",
        f"data.val_files={cold_start.data / 'test.parquet'}",
        f"actor_rollout_ref.model.path={cold_start.model}",
    ]
    assert run_main("codedance_verl.evaluate", *arguments).returncode == 0
    rollouts = _rollouts(run_dir, "val")
    variants = [rollout["variant"] for rollout in rollouts]
    assert (variants.count("sampled"), variants.count("greedy"), variants.count("blank")) == (24, 24, 4)
    assert not (run_dir / "checkpoints").exists()
    assert _containers(docker_engine) == []
