"""Warm start of the processes of a run on this machine: Ray's workers and vLLM's engines (`runtime.warm_start`)."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from codedance_verl.config.hardware import joins
from codedance_verl.runtime.fork_client import READY_SECONDS
from codedance_verl.runtime.warm_start import warm_python

PRELOADED = "codedance_verl.verl_compat.preloaded"
_OTHER_PYTHON = ("py_executable", "pip", "uv", "conda", "image_uri", "container")
"""Fields of a Ray runtime environment that choose a Python."""


@contextlib.contextmanager
def warm_workers(config: DictConfig) -> Iterator[Path | None]:
    """Yields a Python for workers that has imported what they need; None where `warm_start` is off, or cannot be.

    A cluster that a run joins has other machines, which have no such Python, and workers of an environment of their own
    have other libraries.
    """
    if config.get("warm_start") is not True or not _starts_own_workers(config):
        yield None
        return
    # a worker waits up to READY_SECONDS, which is longer than Ray waits for one
    os.environ.setdefault("RAY_worker_register_timeout_seconds", f"{2 * READY_SECONDS:.0f}")
    # vLLM reads its level when it is imported; the workers get verl's from Ray
    with warm_python([PRELOADED], {"VLLM_LOGGING_LEVEL": os.environ.get("VLLM_LOGGING_LEVEL", "WARN")}) as python:
        yield python


def _starts_own_workers(config: DictConfig) -> bool:
    """True for a Ray cluster of the run's own whose workers run this Python."""
    address = OmegaConf.select(config, "ray_kwargs.ray_init.address")
    chosen = (OmegaConf.select(config, f"ray_kwargs.ray_init.runtime_env.{field}") for field in _OTHER_PYTHON)
    return not joins(address) and not any(chosen)


@contextlib.contextmanager
def warm_engine(is_wanted: bool) -> Iterator[None]:
    """Has multiprocessing, by which vLLM starts its engine, start processes that have imported vLLM, if that is wanted.

    Elsewhere than on a CPU, vLLM forks its engine by itself.
    """
    if not is_wanted:
        yield
        return
    with warm_python([PRELOADED]) as python:
        multiprocessing.set_executable(str(python))
        try:
            yield
        finally:
            multiprocessing.set_executable(sys.executable)


def use_assigned_threads() -> None:
    """Has torch use the threads that Ray assigns to a worker, where it was loaded before.

    Ray sets `OMP_NUM_THREADS` before it imports the class of an actor, and torch reads it when it is loaded.
    """
    if PRELOADED in sys.modules and (threads := os.environ.get("OMP_NUM_THREADS")):
        sys.modules["torch"].set_num_threads(int(threads))
