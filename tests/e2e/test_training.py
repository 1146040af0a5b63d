"""RL with the real vLLM, FSDP, Ray and containers: watched while it goes on, killed, resumed, evaluated.

It is watched by Prometheus itself and by the viewer in a real Chromium. What is resumed has a sandbox that fails on
purpose: it must go on as if nothing were.
"""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from docker import DockerClient
from PIL import Image
from transformers import AutoModelForImageTextToText

from benchmarks.prometheus import Prometheus, metrics_address, panel_queries, prometheus
from codedance_verl.data.conditions import Control
from codedance_verl.environment.sandbox_client import EarlyOpening
from codedance_verl.metrics.catalogue import METRICS, ROLLOUT_OPENED_EARLY, Kind
from tests.browser import browser_or_skip, clean_page, open_run, press, until, viewer
from tests.e2e.conftest import REPOSITORY, ColdStart, run_main
from tests.e2e.runs import containers, metrics_of, rollout_files, rollouts_in, wait_for_run, wait_until
from tests.required import require_prometheus
from tests.short_folder import short_folder

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.e2e, pytest.mark.timeout(2400)]

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
    # for its metrics alone: the largest and the least ratio of a token's probability in training and in rollout
    "algorithm.rollout_correction.rollout_is=token",
    "algorithm.rollout_correction.rollout_is_threshold=1000.0",
)
STEPS = 2  # before the run is killed, and after
RUN_SECONDS = 800.0
NOT_THERE = ("judge_", "rollout_branches", "rollout_redraws")
"""Parts of names of metrics that this run has none of: nobody judges, no call is drawn again.

test_prometheus.py fills their panels.
"""

GAUGES = [metric.exposed for metric in METRICS if metric.kind is Kind.GAUGE]
OPENED_EARLY = f"{ROLLOUT_OPENED_EARLY.tracker}/train/{EarlyOpening.USED}"

FAULTY = "actor_rollout_ref.rollout.agent.agent_loop_manager_class=benchmarks.faulty_rollouts.FaultyManager"


@dataclass(frozen=True)
class Run:
    """A run that goes on."""

    run_dir: Path
    ray_dir: Path
    log: Path
    process: subprocess.Popen[bytes]

    def wait(self, step: int) -> None:
        what = f"metrics of step {step}"
        wait_for_run(lambda: step in metrics_of(self.run_dir), self.process, self.log, RUN_SECONDS, what)

    def metrics_address(self) -> str:
        """Of the run's own Ray."""
        found: list[str] = []

        def shown() -> bool:
            found.extend(filter(None, [metrics_address(self.ray_dir)]))
            return bool(found)

        wait_for_run(shown, self.process, self.log, RUN_SECONDS, "port for metrics")
        return found[0]


@pytest.fixture(scope="module")
def ray_dir() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def run(
    cold_start: ColdStart, sandbox_image: str, ray_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Run]:
    """It goes on until a test kills it, and has a reference model."""
    folder = tmp_path_factory.mktemp("run")
    run_dir, log = folder / "watched", folder / "log"
    more = (
        "trainer.total_training_steps=100",
        "trainer.test_freq=2",
        "monitors.window=8",
        "actor_rollout_ref.actor.use_kl_loss=true",
        "time_limit_s=1600",
        f"+ray_kwargs.ray_init._temp_dir={ray_dir}",
    )
    command = [sys.executable, "-m", "codedance_verl.train", *SMALL, *cold_start.rl(run_dir), *more]
    with log.open("w") as output:
        process = subprocess.Popen(command, cwd=REPOSITORY, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield Run(run_dir, ray_dir, log, process)
    finally:
        process.kill()
        process.wait(timeout=30)


def test_prometheus_has_data_for_every_panel_and_every_tracker_has_all_metrics(run: Run, tmp_path: Path) -> None:
    require_prometheus()
    with prometheus(tmp_path, run.metrics_address()) as server:
        run.wait(STEPS + 1)  # the step's metrics come after its validation
        queries = {
            where: query
            for where, query in panel_queries("10m").items()
            if not any(name in query for name in NOT_THERE)
        }
        missing = server.wait_for(lambda: [at for at, query in queries.items() if not _had_data(server, query)], 60)
        assert missing == []
        assert server.firing() == set()
    console = run.log.read_text()
    assert re.search(r"step 2/100, reward -?[0-9.]+, tools [0-9]+%", console)
    values = {name for metrics in metrics_of(run.run_dir).values() for name in metrics}
    wanted = [metric for metric in METRICS if not any(part in metric.name for part in NOT_THERE)]
    assert [metric.name for metric in wanted if not any(name.startswith(metric.tracker) for name in values)] == []
    assert "codedance/rollout/turns_total/train:" in console
    events = (run.run_dir / "tensorboard").rglob("*tfevents*")
    assert b"codedance/rollout/turns_total/train" in b"".join(path.read_bytes() for path in events)


def _had_data(server: Prometheus, query: str) -> bool:
    """A gauge now, which is told for as long as its process lives; what has rates, at any time of the run."""
    span = "30s" if any(f"{name}{{" in query for name in GAUGES) else "10m"
    return bool(server.values(f"count_over_time(({query})[{span}:2s])"))


def test_rows_arrive_in_the_viewer_while_the_run_goes_on(run: Run, tmp_path: Path) -> None:
    run.wait(1)
    cache = ("--cache", str(tmp_path))
    with (
        browser_or_skip() as browser,
        viewer(run.run_dir.parent, *cache) as address,
        clean_page(browser, address) as page,
    ):
        open_run(page, address, run.run_dir.name)
        page.get_by_role("link", name="all trajectories").click()
        before = int(page.locator("#total").inner_text())
        assert before >= 32
        press(page, "l")
        until(page, "document.querySelectorAll('tr.fresh').length > 0", seconds=120)
        until(page, f"Number(document.querySelector('#total').innerText) >= {before + 4}", seconds=120)
        page.locator("tr.fresh [data-row]").first.click()
        page.wait_for_selector("[data-turn]")


def test_killed_it_leaves_no_container_and_is_resumed_with_a_faulty_sandbox(
    run: Run, cold_start: ColdStart, docker_engine: DockerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = run.run_dir
    run.wait(STEPS)
    assert containers(docker_engine), "the run uses no container"
    os.kill(run.process.pid, signal.SIGKILL)
    run.process.wait(timeout=30)
    wait_until(lambda: not containers(docker_engine), 30, "removal of the dead run's containers")

    done = int((run_dir / "checkpoints" / "latest_checkpointed_iteration.txt").read_text())
    before = {step: metrics for step, metrics in metrics_of(run_dir).items() if step <= done}
    assert done >= STEPS
    # verl writes a step's metrics after its checkpoint: killed between the two, the last line is missing
    assert sorted(before) in (list(range(1, done + 1)), list(range(1, done)))
    _assert_trained(before)
    assert "actor/kl_loss" in before[STEPS], "the reference model took no part"
    opened = sum(metrics.get(OPENED_EARLY, 0.0) for metrics in before.values())
    assert opened > 0, "no session was opened while its first call was being sampled"
    first_files = rollout_files(run_dir)
    _assert_rolled_out(run_dir, first_files, steps=done)

    last = done + STEPS
    more = (f"trainer.total_training_steps={last}", "time_limit_s=780", FAULTY)
    _make_faults_frequent(monkeypatch)
    assert run_main("codedance_verl.train", *SMALL, *cold_start.rl(run_dir), *more).returncode == 0
    after = {step: metrics for step, metrics in metrics_of(run_dir).items() if step > done}
    assert sorted(after) == list(range(done + 1, last + 1)), "steps were done again or left out"
    _assert_trained(after)
    files = rollout_files(run_dir) - first_files
    _assert_rolled_out(run_dir, files, steps=STEPS)
    _assert_faults_cost_their_trajectories_only(run_dir, files)
    model = AutoModelForImageTextToText.from_pretrained(run_dir / "model")
    assert sum(parameter.numel() for parameter in model.parameters()) > 100_000
    assert containers(docker_engine) == []


def _assert_trained(steps: dict[int, Mapping[str, float]]) -> None:
    """The trainer's log-probs of the sampled tokens are the rollout's, over turns and pictures, to the last bits."""
    for metrics in steps.values():
        assert math.isfinite(metrics["actor/pg_loss"])
        assert metrics["actor/grad_norm"] > 0
        largest, least = metrics["rollout_corr/rollout_is_max"], metrics["rollout_corr/rollout_is_min"]
        assert -1e-3 < math.log(least) <= math.log(largest) < 1e-3


def _assert_rolled_out(run_dir: Path, files: set[Path], steps: int) -> None:
    """Every step had its eight groups of four, whole, code was run, and what the model saw can be looked at."""
    rollouts = rollouts_in(files)
    members: dict[tuple[int, str], set[int]] = {}
    for rollout in rollouts:
        members.setdefault((rollout["step"], rollout["group"]), set()).add(rollout["sample"])
    # a run that is killed ends while further groups are under way
    assert sum(samples == set(range(4)) for samples in members.values()) >= 8 * steps
    executions = [turn["execution"] for rollout in rollouts for turn in rollout["turns"] if turn["execution"]]
    assert any(execution["status"] == "ok" and execution["stdout"].strip() for execution in executions)
    for rollout in rollouts:
        for image in rollout["input_images"]:
            assert (run_dir / "trajectories" / image["path"]).is_file()


def _make_faults_frequent(monkeypatch: pytest.MonkeyPatch) -> None:
    """So frequent that a run as short as this one has some of each."""
    for name, value in {"KILLED": "0.2", "REFUSED": "0.2", "RESTART_AT": "20"}.items():
        monkeypatch.setenv(f"CODEDANCE_FAULTS_{name}", value)
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))  # Ray's workers import the benchmarks


def _assert_faults_cost_their_trajectories_only(run_dir: Path, files: set[Path]) -> None:
    """Sessions that were refused were asked for again; what was killed is masked, and nothing else is."""
    struck = json.loads((run_dir / "faults.json").read_text())
    assert struck["refused"] and struck["killed"] and struck["restarts"] == 1, struck
    rollouts = rollouts_in(files)
    ended = [rollout for rollout in rollouts if rollout["finish"] == "infrastructure"]
    assert len(ended) == struck["killed"] + struck["lost"]
    assert [rollout for rollout in rollouts if rollout["reward"]["masked"]] == ended
    assert len(ended) < len(rollouts) / 2


def _assert_controls_hold(rollouts: list[dict[str, Any]], log: Path) -> None:
    """Four questions under each intervention: what the model was shown and what it wrote are as the control says."""
    controlled = {control: [item for item in rollouts if item["control"] == control] for control in Control}
    assert {control: len(found) for control, found in controlled.items()} == dict.fromkeys(Control, 4)
    shown = [
        image
        for item in controlled[Control.GREY_OBSERVATIONS]
        for turn in item["turns"]
        if turn["execution"]
        for image in turn["execution"]["images"]
    ]
    for image in shown:
        with Image.open(log / "images" / f"{image['sha256']}.png") as picture:
            assert picture.size == (image["width"], image["height"]) and picture.convert("L").getextrema() == (128, 128)
    for item in controlled[Control.NO_TOOLS]:
        assert all("<code>" not in turn["text"] and turn["execution"] is None for turn in item["turns"])
    for item in controlled[Control.FORCED_TOOLS]:
        assert "<answer>" not in item["turns"][0]["text"]
    assert any(item["turns"][0]["code"] for item in controlled[Control.FORCED_TOOLS])


@pytest.mark.long
def test_evaluation_uses_the_environment_of_training(
    cold_start: ColdStart, sandbox_image: str, docker_engine: DockerClient, tmp_path: Path
) -> None:
    run_dir = tmp_path / "eval"
    arguments = [
        *(item for item in SMALL if not item.startswith("trainer.")),
        "time_limit_s=780",
        f"run_dir={run_dir}",
        f"data.val_files={cold_start.data / 'test.parquet'}",
        f"actor_rollout_ref.model.path={cold_start.model}",
    ]
    assert run_main("codedance_verl.evaluate", *arguments).returncode == 0
    rollouts = rollouts_in(rollout_files(run_dir, "val"))
    variants = [rollout["variant"] for rollout in rollouts]
    assert (variants.count("sampled"), variants.count("greedy"), variants.count("blank")) == (24, 24, 4)
    _assert_controls_hold(rollouts, run_dir / "trajectories")
    assert not (run_dir / "checkpoints").exists()
    assert containers(docker_engine) == []
