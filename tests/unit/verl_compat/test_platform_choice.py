"""Which platform verl takes in a process of a run: the one of the run's hardware, whatever its own machine has."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

CODE = """
import json, sys
from codedance_verl.config.compose import apply_env_vars, compose_config
apply_env_vars(compose_config("train", [f"hardware={sys.argv[1]}", "run_dir=/tmp/run"]))
import codedance_verl.plugin
from torch.distributed.fsdp import CPUOffloadPolicy
from verl.plugin.platform import get_platform
platform = get_platform()
mended = CPUOffloadPolicy.__init__.__name__ == "without_pinning"
print(json.dumps([platform.device_name, platform.rollout_env_vars(), mended]))
"""


def _platform_on_this_machine(hardware: str) -> list[object]:
    environment = {name: value for name, value in os.environ.items() if name != "VERL_PLATFORM"}
    done = subprocess.run(
        [sys.executable, "-c", CODE, hardware], env=environment, capture_output=True, text=True, timeout=200, check=True
    )
    return list(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.slow
@pytest.mark.timeout(240)  # a bound for what hangs: an import of verl takes seconds, more on a machine that is busy
@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="this machine may have a GPU, which verl finds")
@pytest.mark.parametrize("hardware", ["1xgpu", "2x8gpu"])
def test_a_driver_without_a_gpu_prepares_the_workers_of_a_gpu_run_for_gpus(hardware: str) -> None:
    """Its workers get verl's guard against hangs of weight transfers, and nothing that is made for CPUs is applied."""
    assert _platform_on_this_machine(hardware) == ["cuda", {"NCCL_CUMEM_ENABLE": "0"}, False]


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_cpu_run_takes_the_cpu_and_what_mends_verl_there() -> None:
    assert _platform_on_this_machine("cpu") == ["cpu", {}, True]
