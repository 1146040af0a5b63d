"""Looks at the machine before the demo starts: cores, memory, disk, and where model code will run."""

from __future__ import annotations

import json
import os
import platform
import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from codedance_verl.errors import UserError

FILE = "environment.json"
BACKENDS = ("auto", "docker", "process")


@dataclass(frozen=True)
class Environment:
    """Facts about the machine for the report.

    Attributes:
        backend: where model code runs, "docker" or "process".
        notes: sentences for the report's head.
        setup_s: seconds of the set-up before the demo (environment, packages); 0 where not measured.
    """

    backend: str
    notes: tuple[str, ...]
    setup_s: float = 0.0


@dataclass(frozen=True)
class Backend:
    """Backend for model code, and why it is not containers if it is not."""

    name: str
    missing: str | None = None


def choose_backend(asked: str) -> Backend:
    """Returns "docker" where an engine answers or can be started, else "process" if "auto" was asked for.

    Raises:
        UserError: Docker was asked for and no engine answers or can be started.
    """
    if asked == "process":
        return Backend("process", "sandbox process was asked for")
    from codedance_verl.sandbox.docker.engine import ensure_engine

    try:
        ensure_engine(may_start=True).close()
    except UserError as error:
        if asked == "docker":
            raise
        return Backend("process", str(error))
    return Backend("docker")


def remove_orphan_containers(backend: Backend) -> None:
    """Removes what dead processes left in the Docker engine; nothing where there is no engine any more."""
    if backend.name != "docker":
        return
    from docker.errors import DockerException

    from codedance_verl.sandbox.docker import engine, reaper

    if (client := engine.connect()) is not None:
        with suppress(DockerException, OSError):
            reaper.remove_orphans(client)
        client.close()


def describe(backend: Backend, out: Path, setup_s: float) -> Environment:
    """Notes on this machine."""
    memory, free = psutil.virtual_memory().total, shutil.disk_usage(out).free
    machine = (
        f"{os.cpu_count()} CPU cores, {memory / 2**30:.0f} GiB of memory, {free / 2**30:.0f} GiB of free disk, "
        f"Python {platform.python_version()}, {platform.system()} {platform.release()}."
    )
    where = (
        "Model code ran in Docker containers."
        if backend.name == "docker"
        else f"Model code ran in plain processes, which is no security boundary: {backend.missing}."
    )
    return Environment(backend.name, (machine, where), setup_s)


def write_environment(out: Path, environment: Environment) -> None:
    (out / FILE).write_text(json.dumps(asdict(environment), indent=1) + "\n", encoding="utf-8")


def read_environment(out: Path) -> Environment:
    """Reads what the driver wrote. Raises UserError where it is missing or broken."""
    try:
        value = json.loads((out / FILE).read_text(encoding="utf-8"))
        return Environment(str(value["backend"]), tuple(map(str, value["notes"])), float(value["setup_s"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{out / FILE}: not readable ({error}); run `make demo`, which writes it") from None
