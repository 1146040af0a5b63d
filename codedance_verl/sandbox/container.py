"""Interpreters in hardened Docker containers."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from docker.errors import APIError, DockerException, NotFound
from docker.types import LogConfig

from codedance_verl.sandbox import engine, image, reaper
from codedance_verl.sandbox.config import MIB, SandboxConfig
from codedance_verl.sandbox.errors import SandboxUnavailable
from codedance_verl.sandbox.launcher import CONTAINER_SOCKET_DIRECTORY, SOCKET_NAME

if TYPE_CHECKING:
    from docker import DockerClient

SCRATCH = "/tmp"
_SCRATCH_INODES = 65_536
_SHARED_MEMORY = "16m"


class DockerLauncher:
    """Runs every interpreter as PID 1 of a container without network, with a read-only root and next to no capability.

    PID 1 keeps SETUID and SETGID, to give each session a user id of its own; sessions keep nothing. The socket
    directory is mounted read-only: interpreters connect out to the host and cannot write to its disk.
    """

    own_uids = True

    def __init__(self, config: SandboxConfig, owner: reaper.Owner, may_start_engine: bool = True) -> None:
        self._config = config
        self._labels = reaper.labels(owner)
        self._may_start_engine = may_start_engine
        self._client: DockerClient | None = None
        self._image = ""
        self._remapped = False
        self.socket_mode = 0o600

    @property
    def client(self) -> DockerClient:
        if self._client is None:
            self._client = engine.ensure_engine(self._may_start_engine)
        return self._client

    def prepare(self) -> None:
        self._image = image.require_image(self.client, self._config.image)
        options = self.client.info().get("SecurityOptions") or []
        self._remapped = any("name=userns" in option or "name=rootless" in option for option in options)
        if self._remapped or os.geteuid() != 0:
            self.socket_mode = 0o666  # PID 1 is no owner of the socket then; the node checks who connects
        reaper.remove_orphans(self.client)

    def launch(self, name: str, socket_directory: Path) -> None:
        config = self._config
        try:
            self.client.containers.run(
                self._image,
                [
                    "--socket",
                    f"{CONTAINER_SOCKET_DIRECTORY}/{SOCKET_NAME}",
                    "--name",
                    name,
                    "--root",
                    SCRATCH,
                    "--own-uids",
                    "--preload",
                    config.preload,
                ],
                name=name,
                detach=True,
                auto_remove=True,
                labels=self._labels,
                hostname="sandbox",
                network_mode="none",
                read_only=True,
                tmpfs={
                    SCRATCH: f"rw,nosuid,nodev,noexec,size={config.scratch_mb}m,nr_inodes={_SCRATCH_INODES},mode=1777"
                },
                shm_size=_SHARED_MEMORY,
                volumes={str(socket_directory): {"bind": CONTAINER_SOCKET_DIRECTORY, "mode": "ro"}},
                user="0:0",
                cap_drop=["ALL"],
                cap_add=["SETUID", "SETGID"],
                security_opt=["no-new-privileges:true"],
                mem_limit=config.memory_mb * MIB,
                memswap_limit=config.memory_mb * MIB,
                pids_limit=config.pids,
                nano_cpus=int(config.cpus * 1e9) or None,
                log_config=LogConfig(type="json-file", config={"max-size": "1m", "max-file": "1"}),
            )
        except (DockerException, OSError) as error:  # OSError: the engine itself cannot be reached
            raise SandboxUnavailable(f"container {name} does not start: {_reason(error)}") from None

    def remove(self, name: str) -> None:
        with contextlib.suppress(DockerException, OSError):
            reaper.remove_container(self.client, name)

    def root_uid(self, name: str) -> int:
        if not self._remapped:
            return 0
        pid = self.client.api.inspect_container(name)["State"]["Pid"]
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
        return int(next(line for line in status.splitlines() if line.startswith("Uid:")).split()[1])

    def failure_log(self, name: str) -> str:
        try:
            return str(self.client.api.logs(name, tail=3).decode("utf-8", "replace").strip())
        except (NotFound, DockerException, OSError):
            return ""

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None


def _reason(error: Exception) -> str:
    return str(error.explanation if isinstance(error, APIError) and error.explanation else error)[:300]
