"""Interface of what interpreters run in: their start and their end."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

CONTAINER_SOCKET_DIRECTORY = "/run/codedance"
SOCKET_NAME = "host.sock"


def interpreter_arguments(name: str, socket_directory: str | Path, root: str | Path, preload: str) -> list[str]:
    """Returns the arguments of `codedance_interpreter.container_init`, with the paths as it sees them."""
    socket = f"{socket_directory}/{SOCKET_NAME}"
    return ["--socket", socket, "--name", name, "--root", str(root), "--preload", preload]


class Launcher(Protocol):
    """A way to run interpreters. All methods block and may be called from any thread."""

    own_uids: bool
    """True where every session gets a user id of its own."""

    socket_mode: int
    """File mode the host's socket needs for the interpreter to reach it, and nobody else where possible."""

    def prepare(self) -> None:
        """Checks that interpreters can be started here and clears what dead owners left. Raises `UserError`."""

    def launch(self, name: str, socket_directory: Path) -> None:
        """Starts an interpreter that will connect to the socket in `socket_directory`; does not wait for that."""

    def remove(self, name: str) -> None:
        """Ends an interpreter and all in it. Does nothing if it has gone already."""

    def root_uid(self, name: str) -> int:
        """Returns the user id, as the host sees it, under which the interpreter `name` opens its connections."""

    def failure_log(self, name: str) -> str:
        """Returns the last lines that the interpreter wrote, for an error message; empty when there are none."""

    def count_orphans(self) -> int:
        """Returns the number of containers on this machine whose owner is dead."""

    def close(self) -> None:
        """Releases what the launcher itself holds, once all its interpreters are removed."""
