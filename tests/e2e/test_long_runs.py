"""Runs that are told to stop, killed while they save, and resumed; on two ranks; with a critic; with LoRA.

One deterministic run of four steps on a data set that is exactly two steps long is what the others are held against.
Sandboxes are processes: they are not what is looked at here.
"""

from __future__ import annotations

import contextlib
import math
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForImageTextToText

from codedance_verl.runtime.checkpoints import folder_of, is_whole, whole_steps
from codedance_verl.runtime.run_limits import SAVE_FILE, STOPPED_EXIT_CODE
from tests.e2e.conftest import REPOSITORY, ColdStart, run_main
from tests.e2e.runs import exit_code, metrics_of, rollout_files, rollouts_in, wait_for_run

pytestmark = [pytest.mark.slow, pytest.mark.e2e, pytest.mark.timeout(2400)]

PROMPTS, STEPS = 4, 4
LOOK_SECONDS = 2.0
"""How often verl's trainer looks for rollouts, and so for a request to stop: `ReplayBuffer.poll_interval`."""
SMALL = (
    "recipe=cpu_demo",
    "hardware=cpu",
    "sandbox.backend=process",
    "sandbox.containers=1",
    f"data.train_batch_size={PROMPTS}",
    "data.val_batch_size=8",
    "actor_rollout_ref.rollout.n=2",
    f"actor_rollout_ref.actor.ppo_mini_batch_size={PROMPTS}",
    "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=4",
    "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=4",
    "time_limit_s=780",
    # for its metrics alone: the largest and the least ratio of a token's probability in training and in rollout
    "algorithm.rollout_correction.rollout_is=token",
    "algorithm.rollout_correction.rollout_is_threshold=1000.0",
)
DETERMINISTIC = ("deterministic=true", f"trainer.total_training_steps={STEPS}")


@pytest.fixture(scope="module")
def start(cold_start: ColdStart, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Arguments of every run here: a model, and data of exactly two steps."""
    data = tmp_path_factory.mktemp("two_steps") / "train.parquet"
    pq.write_table(pq.read_table(cold_start.data / "rl_train.parquet").slice(0, 2 * PROMPTS), data)
    return (
        *SMALL,
        f"data.train_files={data}",
        f"data.val_files={cold_start.data / 'rl_val.parquet'}",
        f"actor_rollout_ref.model.path={cold_start.model}",
    )


@pytest.fixture(scope="module")
def straight(start: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a deterministic run that nothing interrupts; it keeps two of its four checkpoints."""
    run_dir = tmp_path_factory.mktemp("straight")
    arguments = (
        *start,
        *DETERMINISTIC,
        "trainer.save_freq=1",
        "trainer.max_actor_ckpt_to_keep=2",
        f"run_dir={run_dir}",
    )
    assert run_main("codedance_verl.train", *arguments).returncode == 0
    return run_dir


def _records(run_dir: Path) -> dict[int, list[tuple[str, str]]]:
    """By step, the record and the text of each rollout; of a step that was done twice the last one."""
    found: dict[int, dict[tuple[str, int], str]] = {}
    for rollout in rollouts_in(rollout_files(run_dir)):
        text = "".join(turn["text"] for turn in rollout["turns"])
        found.setdefault(rollout["step"], {})[rollout["record_id"], rollout["sample"]] = text
    return {
        step: sorted((f"{record}#{sample}", text) for (record, sample), text in rollouts.items())
        for step, rollouts in found.items()
    }


def _weights(run_dir: Path, step: int = STEPS) -> dict[str, torch.Tensor]:
    path = folder_of(run_dir / "checkpoints", step) / "actor" / "model_world_size_1_rank_0.pt"
    loaded: dict[str, Any] = torch.load(path, weights_only=False)
    return {name: getattr(weight, "_local_tensor", weight) for name, weight in loaded.items()}


def _loaded(model: Path) -> dict[str, torch.Tensor]:
    """Weights as they lie in the folder, whatever its configuration asks for."""
    loaded: dict[str, torch.Tensor] = AutoModelForImageTextToText.from_pretrained(
        model, dtype=torch.float32
    ).state_dict()
    return loaded


def _largest_difference(run_dir: Path, other: Path) -> float:
    ours, theirs = _weights(run_dir), _weights(other)
    assert ours.keys() == theirs.keys()
    return max(float((weight - theirs[name]).abs().max()) for name, weight in ours.items())


@contextlib.contextmanager
def _running(arguments: tuple[str, ...], log: Path) -> Any:
    """The command in a process; what is left of it is killed at the end."""
    command = [sys.executable, "-m", "codedance_verl.train", *arguments]
    with log.open("w") as out:
        process = subprocess.Popen(command, cwd=REPOSITORY, stdout=out, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        _kill(process.pid)
        process.wait(timeout=30)
        print("\n".join(log.read_text().splitlines()[-40:]))


def _kill(pid: int) -> None:
    """SIGKILL to the command and all that descends from it, as if the machine had gone down."""
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        for process in [root, *root.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


@contextlib.contextmanager
def _generation_held(pid: int) -> Iterator[None]:
    """The engines of the run stand still inside the block: a step that has begun cannot get its rollouts."""
    engines = [process for process in psutil.Process(pid).children(recursive=True) if "EngineCore" in _title(process)]
    assert engines, "no process of vLLM's engine"
    for engine in engines:
        engine.suspend()
    try:
        yield
    finally:
        for engine in engines:
            with contextlib.suppress(psutil.NoSuchProcess):  # the run has ended already
                engine.resume()


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


def test_checkpoints_are_kept_as_was_said(straight: Path) -> None:
    assert whole_steps(straight / "checkpoints") == [STEPS - 1, STEPS]
    kept = [path.name for path in (straight / "checkpoints").glob("global_step_*")]
    assert len(kept) == 2, "something is left of those that were removed"
    AutoModelForImageTextToText.from_pretrained(straight / "model")


def test_stopped_at_the_end_of_an_epoch_and_killed_while_it_saves_it_ends_as_if_nothing_had_been(
    straight: Path, start: tuple[str, ...], tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    checkpoints = run_dir / "checkpoints"
    arguments = (*start, *DETERMINISTIC, f"run_dir={run_dir}")

    log = tmp_path / "stopped.log"
    with _running((*arguments, "trainer.save_freq=-1"), log) as process:
        wait_for_run(lambda: 2 in metrics_of(run_dir), process, log, 780, "metrics of step 2", pause_s=0.01)
        with _generation_held(process.pid):  # a fast machine would finish step 3 before the trainer looks
            assert whole_steps(checkpoints) == []
            process.send_signal(signal.SIGTERM)
            wait_for_run((run_dir / SAVE_FILE).exists, process, log, 30, "request to save and stop")
            time.sleep(2 * LOOK_SECONDS)
        assert exit_code(process, log, 240) == STOPPED_EXIT_CODE
    assert "stopped: the last finished step, 2, is saved" in log.read_text()
    assert whole_steps(checkpoints) == [2]

    log = tmp_path / "killed.log"
    with _running((*arguments, "trainer.save_freq=1"), log) as process:
        wait_for_run(folder_of(checkpoints, STEPS).exists, process, log, 780, "folder for step 4", pause_s=0.005)
        _kill(process.pid)
    assert not is_whole(folder_of(checkpoints, STEPS))
    assert whole_steps(checkpoints) == [3]  # from which it goes on, in the middle of an epoch

    assert run_main("codedance_verl.train", *arguments, f"trainer.save_freq={STEPS}").returncode == 0
    assert sorted(metrics_of(run_dir)) == list(range(1, STEPS + 1))
    drawn, expected = _records(run_dir), _records(straight)
    for step in range(1, STEPS + 1):
        assert [name for name, _ in drawn[step]] == [name for name, _ in expected[step]], f"data order of step {step}"
        assert drawn[step] == expected[step], f"rollouts of step {step}"
    assert _largest_difference(run_dir, straight) == 0.0


@pytest.mark.long
def test_two_ranks_and_two_replicas_have_the_loss_of_one(
    straight: Path, start: tuple[str, ...], tmp_path: Path
) -> None:
    steps = 3
    two = (
        "deterministic=true",
        "trainer.n_gpus_per_node=2",
        f"trainer.total_training_steps={steps}",
        "trainer.save_freq=-1",
    )
    assert run_main("codedance_verl.train", *start, *two, f"run_dir={tmp_path}").returncode == 0
    ours, theirs = metrics_of(tmp_path), metrics_of(straight)
    assert sorted(ours) == list(range(1, steps + 1))
    drawn, expected = _records(tmp_path), _records(straight)
    for step, metrics in ours.items():
        assert drawn[step] == expected[step], f"rollouts of step {step}"
        assert metrics["actor/pg_loss"] == pytest.approx(theirs[step]["actor/pg_loss"], abs=1e-4)
        assert metrics["actor/loss"] == pytest.approx(theirs[step]["actor/loss"], abs=1e-4)


def test_ppo_trains_actor_and_critic_while_rollouts_are_interrupted(start: tuple[str, ...], tmp_path: Path) -> None:
    ppo = ("algorithm=ppo", "trainer=colocate_async", "trainer.total_training_steps=2", "trainer.save_freq=2")
    assert run_main("codedance_verl.train", *start, *ppo, f"run_dir={tmp_path}").returncode == 0
    steps = metrics_of(tmp_path)
    assert sorted(steps) == [1, 2]
    for metrics in steps.values():
        assert math.isfinite(metrics["actor/pg_loss"]) and metrics["actor/grad_norm"] > 0
        assert math.isfinite(metrics["critic/vf_loss"]) and metrics["critic/grad_norm"] > 0
    assert steps[1]["critic/values/mean"] == 0, "a new critic knows nothing"
    assert steps[2]["critic/values/mean"] != 0, "the critic has learned nothing"
    assert (folder_of(tmp_path / "checkpoints", 2) / "critic" / "model_world_size_1_rank_0.pt").is_file()


@pytest.mark.long
def test_lora_trains_adapters_and_leaves_a_merged_model(
    start: tuple[str, ...], cold_start: ColdStart, tmp_path: Path
) -> None:
    lora = ("adapter=lora", "trainer.total_training_steps=2", "trainer.save_freq=2")
    assert run_main("codedance_verl.train", *start, *lora, f"run_dir={tmp_path}").returncode == 0
    steps = metrics_of(tmp_path)
    assert all(metrics["actor/grad_norm"] > 0 for metrics in steps.values())
    for metrics in steps.values():  # in the second step the rollouts are those of the merged weights
        assert abs(math.log(metrics["rollout_corr/rollout_is_max"])) < 1e-3
        assert abs(math.log(metrics["rollout_corr/rollout_is_min"])) < 1e-3
    before = _loaded(cold_start.model)
    after = _loaded(tmp_path / "model")
    moved = {name for name, weight in after.items() if not torch.equal(weight, before[name])}
    assert moved
    assert not [name for name in moved if any(part in name for part in ("norm", "embed", "lm_head", "bias"))]
