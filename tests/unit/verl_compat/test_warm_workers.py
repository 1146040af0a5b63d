from __future__ import annotations

import json
import multiprocessing.spawn
import os
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from codedance_verl.verl_compat import warm_workers as warm


def _config(warm_start: bool = True, **ray_init: object) -> object:
    # `runtime_env` as verl's tree has it
    defaults: dict[str, object] = {"runtime_env": {"py_executable": None}}
    return OmegaConf.create({"warm_start": warm_start, "ray_kwargs": {"ray_init": {**defaults, **ray_init}}})


@pytest.fixture(autouse=True)
def _light(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm, "PRELOADED", "colorsys")  # which costs nothing
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.mark.parametrize(
    "config",
    [
        _config(warm_start=False),
        _config(address="10.0.0.1:6379"),
        _config(runtime_env={"py_executable": "/usr/bin/python3"}),
        _config(runtime_env={"pip": ["numpy"]}),
    ],
    ids=["off", "a cluster that is joined", "another Python", "another environment"],
)
def test_workers_start_as_usual(config: object) -> None:
    with warm.warm_workers(config) as python:  # type: ignore[arg-type]
        assert python is None


def test_workers_of_the_runs_own_cluster_are_warm() -> None:
    with warm.warm_workers(_config()) as python:  # type: ignore[arg-type]
        code = "import sys; print('colorsys' in sys.modules)"
        assert python is not None
        assert subprocess.run([python, "-c", code], capture_output=True, timeout=120).stdout == b"True\n"


def test_a_cluster_named_by_the_environment_is_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    with warm.warm_workers(_config()) as python:  # type: ignore[arg-type]
        assert python is None


def test_an_engine_is_warm_while_the_block_lasts() -> None:
    before = multiprocessing.spawn.get_executable()
    with warm.warm_engine(True):
        assert os.fsdecode(multiprocessing.spawn.get_executable()) != os.fsdecode(before)
    assert os.fsdecode(multiprocessing.spawn.get_executable()) == sys.executable
    with warm.warm_engine(False):
        assert os.fsdecode(multiprocessing.spawn.get_executable()) == sys.executable


_PRELOAD = """
import json, os, sys
import codedance_verl.verl_compat.preloaded as preloaded
import torch
loaded = [name for name in ("ray", "verl", "sklearn") if name in sys.modules]
torch.set_num_threads(2)
os.environ["OMP_NUM_THREADS"] = "1"  # as Ray does before it imports an actor's class
import verl
from codedance_verl import plugin
plugin.require_loaded()
from codedance_verl.verl_compat import vllm_cpu
threads = torch.get_num_threads()
print(json.dumps([loaded, "vllm.config" in sys.modules, threads, vllm_cpu.running_in_vllm_worker()]))
"""


@pytest.mark.slow
def test_what_is_preloaded_leaves_ray_and_verl_to_the_process() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PRELOAD],
        env={**os.environ, "VERL_PLATFORM": "cpu"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1]) == [[], True, 1, False]


_IN_CHILDREN = """
def in_worker():
    from codedance_verl.verl_compat.vllm_cpu import running_in_vllm_worker
    return running_in_vllm_worker()

def in_worker_with_vllm():
    import vllm.v1.worker.cpu_worker
    return in_worker()
"""
_SPAWN = """
import concurrent.futures, multiprocessing
import in_children
from codedance_verl.verl_compat.vllm_cpu import answer_to_the_name_vllm

def of_child(function):
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, context, answer_to_the_name_vllm) as pool:
        return pool.submit(function).result()

print(of_child(in_children.in_worker), of_child(in_children.in_worker_with_vllm))
"""


@pytest.mark.slow
def test_a_process_of_multiprocessing_that_has_vllm_first_is_its_worker(tmp_path: Path) -> None:
    (tmp_path / "in_children.py").write_text(_IN_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", _SPAWN],
        env={**os.environ, "VERL_PLATFORM": "cpu"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == "False True"
