"""Eleven benchmarks, from their files to the report: a tiny model in a real vLLM, real containers, killed half-way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from docker import DockerClient

from codedance_verl.records.store import existing_store
from tests.e2e.conftest import REPOSITORY, ColdStart
from tests.e2e.eval_data import BENCHMARKS, make_benchmarks
from tests.e2e.runs import containers

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
