"""Chooses what the interpreters run in."""

from __future__ import annotations

import sys

from codedance_verl.errors import UserError
from codedance_verl.sandbox.config import SandboxConfig
from codedance_verl.sandbox.docker import engine
from codedance_verl.sandbox.docker.container import DockerLauncher
from codedance_verl.sandbox.docker.launcher import Launcher
from codedance_verl.sandbox.docker.reaper import Owner
from codedance_verl.sandbox.process import ProcessLauncher


def choose_launcher(config: SandboxConfig, owner: Owner | None = None) -> Launcher:
    """Returns the launcher that `config.backend` means; blocks while an engine is looked for, or started.

    `owner` is the process with which containers end, this one by default. `docker` raises `UserError` when no engine
    can be had; `auto` then falls back to `process` and says so.
    """
    if config.backend == "process":
        return ProcessLauncher(config)
    try:
        engine.ensure_engine(may_start=True).close()
    except UserError as error:
        if config.backend == "docker":
            raise
        print(f"WARNING: sandbox.backend=auto found no container engine: {error}", file=sys.stderr, flush=True)
        return ProcessLauncher(config)
    return DockerLauncher(config, owner or Owner.current())
