"""Interpreters in hardened Docker containers."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from docker.errors import APIError, DockerException
from docker.types import LogConfig

from codedance_verl.errors import UserError
from codedance_verl.sandbox.config import MIB, SandboxConfig
from codedance_verl.sandbox.docker import engine, image, reaper
from codedance_verl.sandbox.docker.launcher import CONTAINER_SOCKET_DIRECTORY, interpreter_arguments
from codedance_verl.sandbox.docker.sizing import sized
from codedance_verl.sandbox.errors import SandboxUnavailable

if TYPE_CHECKING:
    from docker import DockerClient

SCRATCH = "/scratch"
_SCRATCH_INODES = 65_536
_LEAST_SHARES, _MOST_SHARES = 2, 262_144  # of the kernel


def cgroup_parent(facts: Mapping[str, Any]) -> str | None:
    """Returns the control group in which containers are made: the root's children, or None for the engine's own choice.

    Below the engine's own parent, all containers together have that one's weight, which the engine does not set.

    Args:
        facts: what the engine says of itself (`docker info`).
    """
    if any("name=rootless" in option for option in facts.get("SecurityOptions") or []):
        return None  # such an engine may use its user's groups alone
    return {"cgroupfs": "/", "systemd": "-.slice"}.get(str(facts.get("CgroupDriver")))


def cpu_shares(config: SandboxConfig) -> int:
    """Returns the weight of one container, of which those that serve have `sandbox.cpu_weight` together."""
    return min(max(round(config.cpu_weight / config.containers), _LEAST_SHARES), _MOST_SHARES)


class DockerLauncher:
    """Launcher of interpreters as PID 1 of containers without network, with a read-only root and next to no capability.

    Its system calls are those of `sandbox_image/seccomp.json` and no others.

    PID 1 keeps SETUID and SETGID, to give each session a user id of its own; sessions keep nothing. The socket
    directory is mounted read-only: interpreters connect out to the host and cannot write to its disk.
    """

    own_uids = True

    def __init__(self, config: SandboxConfig, owner: reaper.Owner) -> None:
        self._config = sized(config)
        self._labels = reaper.labels(owner)
        self._client: DockerClient | None = None
        self._image = ""
        self._remapped = False
        self._cgroup_parent: str | None = None
        self._root_uid: int | None = None
        self.socket_mode = 0o600

    @property
    def client(self) -> DockerClient:
        if self._client is None:
            self._client = engine.ensure_engine(may_start=True)
        return self._client

    def prepare(self) -> None:
        self._image = image.require_image(self.client, self._config.image)
        facts = self.client.info()
        runtime, known = self._config.runtime, facts.get("Runtimes") or {}
        if runtime and runtime not in known:
            raise UserError(
                f"sandbox.runtime={runtime!r}: the engine knows {', '.join(sorted(known))}; install that runtime and "
                "name it to the engine (docs/security.md), or leave sandbox.runtime empty"
            )
        options = facts.get("SecurityOptions") or []
        self._remapped = any("name=userns" in option or "name=rootless" in option for option in options)
        self._cgroup_parent = cgroup_parent(facts)
        if self._remapped or os.geteuid() != 0:
            self.socket_mode = 0o666  # PID 1 is no owner of the socket then; the node checks who connects
        reaper.remove_orphans(self.client)

    def security_options(self) -> list[str]:
        """Returns the security options of every process of a container, in the engine's words."""
        return ["no-new-privileges:true", f"seccomp={image.seccomp_profile()}"]

    def launch(self, name: str, socket_directory: Path) -> None:
        config = self._config
        memory_bytes = (config.memory_mb or 0) * MIB
        scratch = f"rw,nosuid,nodev,noexec,size={config.scratch_mb}m,nr_inodes={_SCRATCH_INODES},mode=1777"
        try:
            self.client.containers.run(
                self._image,
                [*interpreter_arguments(name, CONTAINER_SOCKET_DIRECTORY, SCRATCH, config.preload), "--own-uids"],
                name=name,
                detach=True,
                runtime=config.runtime or None,
                # The container ends when its owner's socket closes, and is gone then without anyone to remove it.
                auto_remove=True,
                labels=self._labels,
                hostname="sandbox",
                network_mode="none",
                read_only=True,
                tmpfs={SCRATCH: scratch},
                ipc_mode="none",  # no /dev/shm that sessions would share; the init process makes one for each
                volumes={str(socket_directory): {"bind": CONTAINER_SOCKET_DIRECTORY, "mode": "ro"}},
                user="0:0",
                cap_drop=["ALL"],
                cap_add=["SETUID", "SETGID"],
                security_opt=self.security_options(),
                mem_limit=memory_bytes,
                # Equal to the memory: no swap, which would turn a limit into slowness for all.
                memswap_limit=memory_bytes,
                pids_limit=config.pids,
                cgroup_parent=self._cgroup_parent,
                cpu_shares=cpu_shares(config),
                nano_cpus=int(config.cpus * 1e9) or None,
                # Bounded: PID 1 and the zygote write to it, and cells must not fill the host's disk.
                log_config=LogConfig(type="json-file", config={"max-size": "1m", "max-file": "1"}),
            )
        except (DockerException, OSError) as error:  # OSError: the engine itself cannot be reached
            reason = error.explanation if isinstance(error, APIError) and error.explanation else error
            raise SandboxUnavailable(f"container {name} does not start: {str(reason)[:300]}") from None

    def remove(self, name: str) -> None:
        with contextlib.suppress(DockerException, OSError):
            reaper.remove_container(self.client, name)

    def root_uid(self, name: str) -> int:
        if not self._remapped:
            return 0
        if self._root_uid is None:  # the same for every container of the engine
            # The map of user namespaces is the engine's: its effect is read off a process that runs.
            pid = self.client.api.inspect_container(name)["State"]["Pid"]
            status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
            self._root_uid = int(next(line for line in status.splitlines() if line.startswith("Uid:")).split()[1])
        return self._root_uid

    def failure_log(self, name: str) -> str:
        try:
            return str(self.client.api.logs(name, tail=3).decode("utf-8", "replace").strip())
        except (DockerException, OSError):
            return ""

    def count_orphans(self) -> int:
        return reaper.count_orphans(self.client)

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None
