"""Finds the Docker engine, and starts one where none answers and that is allowed."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import docker
from docker import DockerClient
from docker.errors import DockerException

from codedance_verl.errors import UserError
from codedance_verl.runtime.locks import exclusive_lock

PING_SECONDS = 5
API_SECONDS = 60
START_SECONDS = 60.0
INSTALL_SECONDS = 300
PACKAGES = ("docker.io", "iptables", "mmdebstrap")
LOG_PATH = Path(tempfile.gettempdir()) / "codedance-dockerd.log"
_LOCK_PATH = Path(tempfile.gettempdir()) / "codedance-engine.lock"


def connect(timeout_s: int = API_SECONDS) -> DockerClient | None:
    """Returns a client of the engine at `DOCKER_HOST`, else at the local socket; None if none answers."""
    try:
        # A ping has a timeout of its own: that of calls is made for slow operations.
        with contextlib.closing(docker.from_env(timeout=PING_SECONDS)) as probe:
            probe.ping()
        return docker.from_env(timeout=timeout_s)
    except (DockerException, OSError):
        return None


def ensure_engine(may_start: bool) -> DockerClient:
    """Returns a client of an engine that answers.

    With `may_start`, as root and without `DOCKER_HOST`, an engine is started if there is none, and on Debian or Ubuntu
    installed first. All waits are bounded. Raises `UserError` with the cause and the cure.
    """
    client = connect()
    if client is not None:
        return client
    if os.environ.get("DOCKER_HOST"):
        raise UserError(f"no Docker engine answers at DOCKER_HOST={os.environ['DOCKER_HOST']}; start it or unset it")
    if not may_start:
        raise UserError("no Docker engine answers; start it (systemctl start docker), or set sandbox.backend=process")
    if os.geteuid() != 0:
        raise UserError(
            "no Docker engine answers and only root may start one; start it (sudo systemctl start docker), "
            "add yourself to the group docker, or set sandbox.backend=process"
        )
    busy = f"another process has been starting the engine too long; see {LOG_PATH}"
    with exclusive_lock(_LOCK_PATH, busy, START_SECONDS + INSTALL_SECONDS):  # two must not start one at the same time
        client = connect()  # another process may have started one meanwhile
        if client is None:
            if shutil.which("dockerd") is None:
                install_packages()
            _start_daemon()
            client = connect()
    if client is None:
        raise UserError(f"the Docker engine was started but does not answer; see {LOG_PATH}")
    return client


def install_packages() -> None:
    """Installs the engine and the tool that makes base images from the distribution's packages; needs root and apt."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise UserError(f"missing {', '.join(PACKAGES)}: install Docker (docs.docker.com/engine/install) and try again")
    print(f"installing {', '.join(PACKAGES)} ...", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    commands = (
        ["apt-get", "update", "-qq"],
        ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "--no-remove", *PACKAGES],
    )
    for command in commands:
        try:
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=INSTALL_SECONDS)
        except subprocess.TimeoutExpired:
            raise UserError(
                f"`{' '.join(command)}` took more than {INSTALL_SECONDS} s; install Docker by hand"
            ) from None
        if done.returncode != 0 and command[1] == "install":  # an update that fails for one source may still do
            reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise UserError(f"`{' '.join(command)}` failed ({reason}); install Docker by hand")


def _start_daemon() -> None:
    print("starting the Docker engine ...", flush=True)
    if Path("/run/systemd/system").is_dir():
        subprocess.run(["systemctl", "start", "docker"], capture_output=True, timeout=START_SECONDS, check=False)
        process = None
    else:
        with LOG_PATH.open("ab") as log:
            process = subprocess.Popen(
                ["dockerd"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/"
            )
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if connect() is not None:
            return
        # A daemon that ends at once is reported at once, with its reason.
        if process is not None and process.poll() is not None:
            tail = LOG_PATH.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
            raise UserError(f"dockerd ended at once: {' '.join(tail)[-300:]} (log: {LOG_PATH})")
        time.sleep(0.25)
    raise UserError(f"the Docker engine did not answer within {START_SECONDS:.0f} s; see {LOG_PATH}")
