"""A cold start small enough for a test: real data, the tiny model, a short SFT through the real command."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from codedance_verl.data.demo_set import DemoSizes, make_demo_data

REPOSITORY = Path(__file__).resolve().parents[2]
SFT_STEPS = 150


@dataclass(frozen=True)
class ColdStart:
    """Where the small data set and the model that was trained on it are."""

    data: Path
    model: Path


def run_main(module: str, *arguments: str, timeout_s: float = 400.0) -> subprocess.CompletedProcess[str]:
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


@pytest.fixture(scope="session")
def cold_start(tmp_path_factory: pytest.TempPathFactory) -> ColdStart:
    folder = tmp_path_factory.mktemp("cold_start")
    make_demo_data(folder / "data", seed=0, sizes=DemoSizes(sft=1_200, rl_train=64, rl_val=8, test=24, blank=4))
    tiny, data = folder / "tiny", folder / "data"
    built = run_main("recipes.cpu_demo.tiny_model", "--data", str(data / "sft.parquet"), "--out", str(tiny))
    assert built.returncode == 0
    trained = run_main(
        "codedance_verl.sft",
        f"run_dir={folder / 'sft'}",
        f"data.train_files={data / 'sft.parquet'}",
        f"model.path={tiny}",
        f"trainer.total_training_steps={SFT_STEPS}",
        "trainer.save_freq=-1",
    )
    assert trained.returncode == 0
    return ColdStart(data, folder / "sft" / "model")
