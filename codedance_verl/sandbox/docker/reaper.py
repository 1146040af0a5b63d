"""Ownership of containers, and removal of those whose owner is dead.

A container ends by itself when its owner's socket closes, so there is rarely anything to reap: containers that were
created but never started, or that outlived an engine restart.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from docker import DockerClient

PROJECT_LABEL = "io.codedance.sandbox"
OWNER_LABEL = "io.codedance.owner"
CREATED_LABEL = "io.codedance.created"


@dataclass(frozen=True)
class Owner:
    """Identity of a process among all that had or will have its pid: boot, pid namespace, pid and start time."""

    boot_id: str
    namespace: str
    pid: int
    started: int

    def __str__(self) -> str:
        return f"{self.boot_id}/{self.namespace}/{self.pid}/{self.started}"

    @classmethod
    def parse(cls, text: str) -> Owner | None:
        """Reads what `str` wrote; None for anything else."""
        parts = text.split("/")
        if len(parts) != 4 or not (parts[2].isdigit() and parts[3].isdigit()):
            return None
        return cls(parts[0], parts[1], int(parts[2]), int(parts[3]))

    @classmethod
    def current(cls) -> Owner:
        """Returns the calling process."""
        pid = os.getpid()
        return cls(_boot_id(), _pid_namespace(), pid, _start_time(pid) or 0)

    def is_dead(self) -> bool:
        """Returns true when this process certainly runs no more; False when it runs or cannot be seen from here."""
        if self.boot_id != _boot_id():
            return True
        if self.namespace != _pid_namespace():
            return False
        return _start_time(self.pid) != self.started


def labels(owner: Owner) -> dict[str, str]:
    """Returns the labels that every container of the project carries."""
    return {PROJECT_LABEL: "1", OWNER_LABEL: str(owner), CREATED_LABEL: str(int(time.time()))}


def list_containers(client: DockerClient) -> list[Any]:
    """Returns all containers of the project, stopped ones included."""
    return client.containers.list(all=True, filters={"label": PROJECT_LABEL}, ignore_removed=True)


def owner_of(container: Any) -> Owner | None:
    """Returns the owner that a container's labels name; None when they are missing or unreadable."""
    return Owner.parse(container.labels.get(OWNER_LABEL, ""))


def remove_orphans(client: DockerClient, everything: bool = False) -> list[str]:
    """Removes the containers of dead owners, or with `everything` all of the project. Returns the names removed."""
    removed = []
    for container in list_containers(client):
        if everything or _is_orphan(container):
            remove_container(client, container.name)
            removed.append(container.name)
    return removed


def count_orphans(client: DockerClient) -> int:
    """Returns the number of containers of dead owners."""
    return sum(_is_orphan(container) for container in list_containers(client))


def _is_orphan(container: Any) -> bool:
    owner = owner_of(container)
    return owner is None or owner.is_dead()


def remove_container(client: DockerClient, name: str) -> None:
    """Kills and removes a container; one that is gone or going already is fine."""
    from docker.errors import APIError

    try:
        client.api.remove_container(name, force=True, v=True)
    except APIError as error:
        # 404: gone; 409: its removal is in progress, by `auto_remove` for one.
        if error.response is None or error.response.status_code not in (404, 409):
            raise


def owned_directory() -> Path:
    """Makes a private temporary directory of this process, whose name holds what `remove_dead_directories` needs."""
    owner = Owner.current()
    return Path(tempfile.mkdtemp(prefix=f"codedance-{owner.pid}-{owner.started}-{_namespace_number(owner.namespace)}-"))


def remove_dead_directories() -> None:
    """Removes the directories that dead processes left behind."""
    current = Owner.current()
    for path in Path(tempfile.gettempdir()).glob("codedance-*-*-*-*"):
        parts = path.name.split("-")
        if not (parts[1].isdigit() and parts[2].isdigit()) or parts[3] != _namespace_number(current.namespace):
            continue
        if Owner(current.boot_id, current.namespace, int(parts[1]), int(parts[2])).is_dead():
            shutil.rmtree(path, ignore_errors=True)


def _namespace_number(namespace: str) -> str:
    return "".join(filter(str.isdigit, namespace))


def _pid_namespace() -> str:
    return str(Path("/proc/self/ns/pid").readlink())


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _start_time(pid: int) -> int | None:
    """Returns the start time of a process in clock ticks since boot; None for no process, or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # behind the command, which may itself hold spaces and brackets
    return None if fields[0] in ("Z", "X") else int(fields[19])  # field 22 of proc(5); the first two are cut off
