"""RL with the real vLLM, FSDP, Ray and containers: groups apart, killed, resumed with both in one place, evaluated.

What is resumed has a sandbox that fails on purpose: it must go on as if nothing were.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from docker import DockerClient
from transformers import AutoModelForImageTextToText

from codedance_verl.evaluation.training import read_metrics
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
    "trainer.save_freq=1",
    "time_limit_s=380",
    # for its metrics alone: the largest and the least ratio of a token's probability in training and in rollout
    "algorithm.rollout_correction.rollout_is=token",
    "algorithm.rollout_correction.rollout_is_threshold=1000.0",
)
STEPS = 2  # of each mode


def _arguments(start: ColdStart, run_dir: Path, *more: str) -> list[str]:
    return [
        *SMALL,
        f"run_dir={run_dir}",
        f"data.train_files={start.data / 'rl_train.parquet'}",
        f"data.val_files={start.data / 'rl_val.parquet'}",
        f"actor_rollout_ref.model.path={start.model}",
        *more,
    ]


def _metrics(run_dir: Path) -> dict[int, Mapping[str, float]]:
    """Metrics by step, over all starts of the run."""
    return {line.step: line.values for line in read_metrics(run_dir)}


def _rollout_files(run_dir: Path, split: str) -> set[Path]:
    return set((run_dir / "trajectories" / split).glob("*.jsonl"))


def _read(files: set[Path]) -> list[dict[str, Any]]:
    return [json.loads(line) for path in sorted(files) for line in path.read_text().splitlines()]


def _containers(engine: DockerClient) -> list[str]:
    found = engine.containers.list(all=True, filters={"label": PROJECT_LABEL}, ignore_removed=True)
    return [container.name for container in found]


def _wait(condition: Any, seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen within {seconds:g} s"
        time.sleep(0.2)


def _assert_trained(steps: dict[int, Mapping[str, float]]) -> None:
    for metrics in steps.values():
        assert math.isfinite(metrics["actor/pg_loss"])
        assert metrics["actor/grad_norm"] > 0


def _assert_same_log_probs(metrics: Mapping[str, float]) -> None:
    """The trainer's log-probs of the sampled tokens are the rollout's, over turns and pictures, to the last bits."""
    largest, least = metrics["rollout_corr/rollout_is_max"], metrics["rollout_corr/rollout_is_min"]
    assert -1e-3 < math.log(least) <= math.log(largest) < 1e-3


def _assert_rolled_out(run_dir: Path, files: set[Path], steps: int) -> None:
    """Every step had its eight groups of four, whole, code was run, and what the model saw can be looked at."""
    rollouts = _read(files)
    members: dict[tuple[int, str], set[int]] = {}
    for rollout in rollouts:
        members.setdefault((rollout["step"], rollout["group"]), set()).add(rollout["sample"])
    # a run that is killed or asynchronous ends while further groups are under way
    assert sum(samples == set(range(4)) for samples in members.values()) >= 8 * steps
    executions = [turn["execution"] for rollout in rollouts for turn in rollout["turns"] if turn["execution"]]
    assert any(execution["status"] == "ok" and execution["stdout"].strip() for execution in executions)
    for rollout in rollouts:
        for image in rollout["input_images"]:
            assert (run_dir / "trajectories" / image["path"]).is_file()


FAULTY = "actor_rollout_ref.rollout.agent.agent_loop_manager_class=benchmarks.faulty_rollouts.FaultyManager"


def _make_faults_frequent(monkeypatch: pytest.MonkeyPatch) -> None:
    """So frequent that a run as short as this one has some of each."""
    for name, value in {"KILLED": "0.2", "REFUSED": "0.2", "RESTART_AT": "20"}.items():
        monkeypatch.setenv(f"CODEDANCE_FAULTS_{name}", value)
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))  # Ray's workers import the benchmarks


def _assert_faults_cost_their_trajectories_only(run_dir: Path, files: set[Path]) -> None:
    """Sessions that were refused were asked for again; what was killed is masked, and nothing else is."""
    struck = json.loads((run_dir / "faults.json").read_text())
    assert struck["refused"] and struck["killed"] and struck["restarts"] == 1, struck
    rollouts = _read(files)
    ended = [rollout for rollout in rollouts if rollout["finish"] == "infrastructure"]
    assert len(ended) == struck["killed"] + struck["lost"]
    assert [rollout for rollout in rollouts if rollout["reward"]["masked"]] == ended
    assert len(ended) < len(rollouts) / 2


def test_a_killed_run_with_groups_apart_is_resumed_with_both_in_one_place_and_a_faulty_sandbox(
    cold_start: ColdStart,
    sandbox_image: str,
    docker_engine: DockerClient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run_dir = tmp_path / "run"
    apart = ("mode=separate_async", "actor_rollout_ref.actor.use_kl_loss=true", "trainer.total_training_steps=9")
    command = [sys.executable, "-m", "codedance_verl.train", *_arguments(cold_start, run_dir, *apart)]
    with (tmp_path / "first.log").open("w") as log:
        first = subprocess.Popen(command, cwd=REPOSITORY, stdout=log, stderr=subprocess.STDOUT)
    try:
        _wait(lambda: STEPS in _metrics(run_dir) or first.poll() is not None, 380, "the second step")
        assert first.poll() is None, (tmp_path / "first.log").read_text()[-3000:]
        assert _containers(docker_engine), "the run uses no container"
    finally:
        os.kill(first.pid, signal.SIGKILL)
        first.wait(timeout=30)
    _wait(lambda: not _containers(docker_engine), 30, "removal of the dead run's containers")
    done = int((run_dir / "checkpoints" / "latest_checkpointed_iteration.txt").read_text())
    before = {step: metrics for step, metrics in _metrics(run_dir).items() if step <= done}
    assert sorted(before) == list(range(1, done + 1)) and done >= STEPS
    _assert_trained(before)
    _assert_same_log_probs(before[1])  # later an asynchronous rollout lags behind
    assert "actor/kl_loss" in before[STEPS], "the reference model took no part"
    first_files = _rollout_files(run_dir, "train")
    _assert_rolled_out(run_dir, first_files, steps=done)

    last = done + STEPS
    resumed = _arguments(cold_start, run_dir, f"trainer.total_training_steps={last}", FAULTY)
    _make_faults_frequent(monkeypatch)
    assert run_main("codedance_verl.train", *resumed).returncode == 0
    after = {step: metrics for step, metrics in _metrics(run_dir).items() if step > done}
    assert sorted(after) == list(range(done + 1, last + 1)), "steps were done again or left out"
    _assert_trained(after)
    for metrics in after.values():
        _assert_same_log_probs(metrics)
    files = _rollout_files(run_dir, "train") - first_files
    _assert_rolled_out(run_dir, files, steps=STEPS)
    _assert_faults_cost_their_trajectories_only(run_dir, files)
    model = AutoModelForImageTextToText.from_pretrained(run_dir / "model")
    assert sum(parameter.numel() for parameter in model.parameters()) > 100_000
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
    variants = [rollout["variant"] for rollout in _read(_rollout_files(run_dir, "val"))]
    assert (variants.count("sampled"), variants.count("greedy"), variants.count("blank")) == (24, 24, 4)
    assert not (run_dir / "checkpoints").exists()
    assert _containers(docker_engine) == []
