"""Eleven benchmarks, from their files to the report: a tiny model in a real vLLM, real containers, killed half-way."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from docker import DockerClient

from codedance_verl.records.store import existing_store
from recipes.cpu_demo.processes import ProcessTree
from tests.e2e.conftest import REPOSITORY, ColdStart, run_main
from tests.e2e.eval_data import BENCHMARKS, make_benchmarks
from tests.e2e.runs import containers, rollout_files, rollouts_in, wait_until

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.e2e, pytest.mark.timeout(1200)]

SETTINGS = (
    "hardware=cpu",
    "sandbox.backend=docker",
    "sandbox.containers=1",
    "sandbox.standby_containers=0",
    "environment.add_system_prompt=false",  # its SFT data has none
    "environment.max_turns=3",
    "serving.max_model_len=2048",
    "serving.response_tokens=352",
)
VALIDATION = (
    "recipe=cpu_demo",
    "hardware=cpu",
    "sandbox.backend=docker",
    "sandbox.containers=1",
    "sandbox.standby_containers=0",
    "time_limit_s=780",
)
ITEMS = 62
ASK_A_JUDGE = ("hrbench_4k", "hrbench_8k", "charxiv", "mathvista", "mathverse")
RUN_SECONDS = 900.0


def command(model: Path, data: Path, out: Path, *more: str) -> list[str]:
    arguments = ["eval", str(model), *BENCHMARKS, "--data", str(data), "--out", str(out), *SETTINGS, *more]
    return [sys.executable, "-m", "codedance_verl.cli", *arguments]


def replies(out: Path) -> dict[tuple[str, str, int], str]:
    """Text of each reply by benchmark, item and sample, as the records have them."""
    found: dict[tuple[str, str, int], str] = {}
    for name in BENCHMARKS:
        if (out / name / "key.json").is_file():
            for record in existing_store(out / name).records():
                assert record.status == "answered", (name, record.item, record.reason)
                found[name, record.item, record.sample] = record.data["text"]
    return found


@pytest.fixture(scope="module")
def evaluated(cold_start: ColdStart, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output of an evaluation that was killed with half of its items on record, and run again."""
    data, out = make_benchmarks(tmp_path_factory.mktemp("data")), tmp_path_factory.mktemp("run") / "eval"
    killed = subprocess.Popen(
        command(cold_start.model, data, out), cwd=REPOSITORY, stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + RUN_SECONDS
    while len(before := replies(out)) < ITEMS // 2:
        assert killed.poll() is None and time.monotonic() < deadline
        time.sleep(0.2)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    done = subprocess.run(
        command(cold_start.model, data, out),
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
    )
    print(done.stdout, done.stderr)
    assert done.returncode == 0
    after = replies(out)
    assert {name: after[name] for name in before} == before
    return out


def test_every_item_has_one_reply_and_both_scores(evaluated: Path) -> None:
    assert len(replies(evaluated)) == ITEMS
    for name in BENCHMARKS:
        scores = json.loads((evaluated / "scores" / f"{name}.json").read_bytes())
        samples = [sample for item in scores["items"] for sample in item["samples"]]
        assert samples and all(sample["status"] == "answered" for sample in samples)
        if name not in ASK_A_JUDGE:  # none is configured
            assert all(sample["official"]["value"] in (0, 1) for sample in samples), name


def test_other_settings_are_refused_and_named(evaluated: Path, cold_start: ColdStart, tmp_path: Path) -> None:
    data = make_benchmarks(tmp_path / "data")
    done = subprocess.run(
        command(cold_start.model, data, evaluated, "eval.temperature=0.5"),
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
    )
    assert done.returncode == 2
    assert "sampling.temperature: 0.0 -> 0.5" in done.stderr


def test_nothing_is_left_running(evaluated: Path, docker_engine: DockerClient) -> None:
    assert containers(docker_engine) == []


@pytest.mark.long
def test_training_evaluation_and_serving_give_the_same_trajectories(
    cold_start: ColdStart, sandbox_image: str, tmp_path: Path
) -> None:
    """The greedy questions of a test file: validated by verl's trainer, evaluated in process, and over HTTP."""
    trained, questions = tmp_path / "trained", cold_start.data / "test.parquet"
    arguments = [
        f"run_dir={trained}",
        f"data.val_files={questions}",
        f"actor_rollout_ref.model.path={cold_start.model}",
    ]
    validated = run_main("codedance_verl.evaluate", *VALIDATION, *arguments)
    assert validated.returncode == 0
    shutil.copytree(cold_start.model, trained / "model")  # beside the settings it was validated under
    local, served = tmp_path / "local", tmp_path / "served"
    own = ("hardware=cpu", "sandbox.containers=1", "sandbox.standby_containers=0")
    done = run_main("codedance_verl.cli", "eval", str(trained), str(questions), "--out", str(local), *own)
    assert done.returncode == 0
    with served_model(trained, tmp_path / "server.log", own) as url:
        asked = ("eval", "trained", str(questions), "--out", str(served), "--endpoint", url)
        assert run_main("codedance_verl.cli", *asked).returncode == 0
    expected = {
        rollout["record_id"]: trajectory(rollout["turns"], rollout["finish"], rollout["grade"]["verdict"])
        for rollout in rollouts_in(rollout_files(trained, "val"))
        if rollout["variant"] == "greedy"
    }
    assert len(expected) == 24 and any(turn[1] for turns, *_ in expected.values() for turn in turns)
    for folder in (local, served):
        assert trajectories(folder) == expected, folder.name


def trajectories(out: Path) -> dict[str, Any]:
    """What is on record of the questions of a file, with the verdict of the grader."""
    scores = json.loads((out / "scores" / "test.json").read_bytes())
    right = {item["id"]: item["samples"][0]["ours"]["value"] for item in scores["items"]}
    return {
        record.item: trajectory(
            record.data["turns"], record.data["finish"], "correct" if right[record.item] == 1 else "wrong"
        )
        for record in existing_store(out / "test").records()
    }


def trajectory(turns: Sequence[Mapping[str, Any]], finish: str, verdict: str) -> Any:
    """Texts, code, observations, statuses, output and images of a trajectory, its end and its verdict."""
    return [_turn(turn) for turn in turns], finish, verdict


def _turn(turn: Mapping[str, Any]) -> Any:
    execution = turn.get("execution") or {}
    images = [image["sha256"] for image in execution.get("images", ())]
    shown = execution.get("status"), execution.get("stdout"), images
    return turn["text"], turn.get("code"), turn.get("observation"), shown


@contextlib.contextmanager
def served_model(model: Path, log: Path, settings: Sequence[str]) -> Iterator[str]:
    """URL of a running server of a model."""
    command = [sys.executable, "-m", "codedance_verl.cli", "serve", "--model", str(model), "serving.port=0", *settings]
    server = ProcessTree(command, log, os.environ, REPOSITORY)
    try:
        wait_until(lambda: "serving trained at" in log.read_text(), RUN_SECONDS, "server")
        found = re.search(r"serving trained at (http://\S+/v1)", log.read_text())
        assert found is not None
        yield found.group(1)
    finally:
        server.end(grace_s=20.0)
