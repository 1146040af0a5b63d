"""Interpreters as plain processes of the host, for development without a container engine.

This is NO security boundary: the code sees the host's network and every file its user may read. What is left are
rlimits, an emptied environment, a private directory, the deadline, and, when the owner is root and the Python
installation is readable for everyone, a user id of its own for every session.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from codedance_verl.sandbox.config import SandboxConfig
from codedance_verl.sandbox.docker import reaper
from codedance_verl.sandbox.docker.image import image_folder
from codedance_verl.sandbox.docker.launcher import interpreter_arguments
from codedance_verl.sandbox.errors import SandboxUnavailable

NOTICE = (
    "sandbox.backend=process: model-written code runs as processes of THIS machine, with its network and files. "
    "This is no security boundary. Use sandbox.backend=docker for anything you do not trust."
)
_BOOT = "import sys; sys.path.insert(0, {folder!r}); from codedance_interpreter.container_init import main; main()"
_STOP_SECONDS = 5.0


class ProcessLauncher:
    """Launcher of interpreters as subprocesses. `own_uids` None means: where it is possible."""

    def __init__(self, config: SandboxConfig, own_uids: bool | None = None) -> None:
        self._config = config
        self.own_uids = can_change_uids() if own_uids is None else own_uids
        self.socket_mode = 0o600
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._base = Path()

    def prepare(self) -> None:
        print(f"WARNING: {NOTICE}", file=sys.stderr, flush=True)
        self._base = reaper.owned_directory()
        self._base.chmod(0o711)  # sessions under uids of their own pass through, and cannot list it

    def launch(self, name: str, socket_directory: Path) -> None:
        root = self._base / name
        root.mkdir()
        # Sessions make folders in it and cannot list those of others; sticky, so they cannot remove them either.
        root.chmod(0o1733 if self.own_uids else 0o700)
        matplotlib_cache = self._base / "matplotlib"
        matplotlib_cache.mkdir(exist_ok=True)
        # -I: no PYTHONPATH, no user site, no current folder on `sys.path`.
        command = [sys.executable, "-I", "-c", _BOOT.format(folder=str(image_folder()))]
        command += interpreter_arguments(name, socket_directory, root, self._config.preload)
        command += ["--own-uids"] if self.own_uids else []
        # Nothing of the owner's environment, which may hold keys.
        environment = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "MPLCONFIGDIR": str(matplotlib_cache)}
        try:
            with self._log(name).open("wb") as log:
                self._running[name] = subprocess.Popen(
                    command,
                    env=environment,
                    cwd="/",
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
        except OSError as error:
            raise SandboxUnavailable(f"interpreter process does not start: {error}") from None

    def remove(self, name: str) -> None:
        """Waits for the init process, which ends with all its sessions once the node has closed its connection."""
        process = self._running.pop(name, None)
        if process is not None:
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait(_STOP_SECONDS)
        shutil.rmtree(self._base / name, ignore_errors=True)

    def root_uid(self, name: str) -> int:
        return os.geteuid()

    def failure_log(self, name: str) -> str:
        try:
            return self._log(name).read_text(encoding="utf-8", errors="replace").strip()[-500:]
        except OSError:
            return ""

    def count_orphans(self) -> int:
        return 0  # a process ends with its owner

    def close(self) -> None:
        if self._base.name:
            shutil.rmtree(self._base, ignore_errors=True)

    def _log(self, name: str) -> Path:
        return self._base / f"{name}.log"


def can_change_uids() -> bool:
    """Returns true when sessions can drop to a uid of their own and still read the Python installation."""
    if os.geteuid() != 0:
        return False
    # Every folder on the way must let other users read and pass (r-x).
    needed = {Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve(), image_folder()}
    return all(folder.stat().st_mode & 0o005 == 0o005 for path in needed for folder in (path, *path.parents))
