"""A cold start small enough for a test: real data, the tiny model, SFT in two parts through the real command."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from recipes.cpu_demo.demo_set import DEMO_KINDS, DemoSizes, make_demo_data
from recipes.cpu_demo.demo_sizes import DEFAULT_SIZE
from recipes.cpu_demo.demonstrations import Mixture

REPOSITORY = Path(__file__).resolve().parents[2]
SFT_STEPS, FIRST_PART = 100, 50


@dataclass(frozen=True)
class ColdStart:
    """Where the small data set, the untrained model and its SFT run are; `first_losses`: of the run's first part."""

    data: Path
    tiny: Path
    sft: Path
    first_losses: tuple[float, ...]

    @property
    def model(self) -> Path:
        return self.sft / "model"

    def rl(self, run_dir: Path) -> tuple[str, ...]:
        """Arguments of an RL run from here."""
        return (
            f"run_dir={run_dir}",
            f"data.train_files={self.data / 'rl_train.parquet'}",
            f"data.val_files={self.data / 'rl_val.parquet'}",
            f"actor_rollout_ref.model.path={self.model}",
        )


def run_main(module: str, *arguments: str, timeout_s: float = 800.0) -> subprocess.CompletedProcess[str]:
    """Run a main of ours as a user would; its output is captured and shown when the test fails."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )
    print("\n".join((done.stdout + done.stderr).splitlines()[-60:]))
    return done


def run_sft(data: Path, tiny: Path, run_dir: Path, steps: int) -> None:
    """Train up to this step, from the last checkpoint if there is one."""
    done = run_main(
        "codedance_verl.sft",
        f"run_dir={run_dir}",
        f"data.train_files={data / 'sft.parquet'}",
        f"model.path={tiny}",
        f"trainer.total_training_steps={steps}",
        f"trainer.save_freq={FIRST_PART}",
        f"data.max_image_pixels={DEFAULT_SIZE**2}",
        "optim.lr_scheduler_type=constant",
    )
    assert done.returncode == 0
    assert f"trained model: {run_dir / 'model'}" in done.stdout


def sft_losses(run_dir: Path) -> tuple[float, ...]:
    """The loss of every step, over all starts of the run."""
    lines = [line for file in sorted((run_dir / "metrics").glob("*.jsonl")) for line in file.read_text().splitlines()]
    return tuple(json.loads(line)["data"]["train/loss"] for line in lines)


@pytest.fixture(scope="session")
def cold_start(tmp_path_factory: pytest.TempPathFactory) -> ColdStart:
    """Made once for all processes that are told the same folder, as those of `make test` are."""
    told = os.environ.get("CODEDANCE_TEST_FOLDER")
    folder = Path(told) if told else tmp_path_factory.mktemp("cold")
    losses = folder / "first_losses.json"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not losses.exists():
            losses.write_text(json.dumps(_make_cold_start(folder / "cold_start")))
    made = folder / "cold_start"
    return ColdStart(made / "data", made / "tiny", made / "sft", tuple(json.loads(losses.read_text())))


def _make_cold_start(folder: Path) -> tuple[float, ...]:
    """Losses of the first part of SFT."""
    shutil.rmtree(folder, ignore_errors=True)  # an attempt that failed
    data, tiny, sft = folder / "data", folder / "tiny", folder / "sft"
    sizes = DemoSizes(sft=1_200, rl_train=64, rl_val=8, test=24, blank=4, controls=4)
    mostly_right = dict.fromkeys(DEMO_KINDS, Mixture(p_right=0.8, p_guess=0.2, p_needless=0.3))
    make_demo_data(data, seed=0, sizes=sizes, mixture=mostly_right)
    built = run_main("recipes.cpu_demo.tiny_model", "--data", str(data / "sft.parquet"), "--out", str(tiny))
    assert built.returncode == 0
    run_sft(data, tiny, sft, FIRST_PART)
    first_losses = sft_losses(sft)
    run_sft(data, tiny, sft, SFT_STEPS)
    return first_losses
