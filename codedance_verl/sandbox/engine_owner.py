"""Use of the container engine by one node actor of a host, on behalf of all.

Only the first node actor of a host reaches the engine. The others, which serve sessions too, ask it to start and remove
their containers; those connect to the socket of the actor that asked. When the first actor dies, the containers of the
others go on, as they end with their own actor's socket; its successor starts the next ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from codedance_verl.sandbox.backend import choose_launcher
from codedance_verl.sandbox.config import SandboxConfig
from codedance_verl.sandbox.docker.launcher import Launcher
from codedance_verl.sandbox.docker.reaper import Owner
from codedance_verl.sandbox.errors import SandboxError
from codedance_verl.sandbox.process import ProcessLauncher

Call = Callable[..., Any]
"""`EngineOwner.call` of the first actor; blocks, and raises `SandboxError` or `UserError`."""

METHODS = ("launch", "remove", "root_uid", "failure_log")


def borrowed_launcher(config: SandboxConfig, call: Call) -> Launcher:
    """Returns the launcher of an actor that is not the first of its host; blocks.

    Where interpreters are processes each actor starts its own: that takes no engine. Raises as `choose_launcher` does.
    """
    if config.backend == "process" or call(str(Owner.current()), "backend") == "process":
        return ProcessLauncher(config)
    return EngineBorrower(call)


class EngineOwner:
    """Starter of containers for other actors of this host; `config` is that of one of them."""

    def __init__(self, config: SandboxConfig) -> None:
        self._config = config
        self._launchers: dict[str, asyncio.Future[Launcher]] = {}

    async def call(self, owner: str, method: str, *arguments: str) -> Any:
        """Calls one of `METHODS` of the launcher of an owner, which is prepared first; raises as `prepare` does.

        `backend` returns the kind of launcher, and `socket_mode` the mode that the owner's socket needs.
        """
        launcher = await self._launcher(owner)
        match method:
            case "backend":
                return "process" if isinstance(launcher, ProcessLauncher) else "docker"
            case "socket_mode":
                return launcher.socket_mode
            case _ if method in METHODS:
                return await asyncio.to_thread(getattr(launcher, method), *arguments)
        raise SandboxError(f"the owner of the engine has no method {method!r}")

    async def _launcher(self, owner: str) -> Launcher:
        # Made at any call: the first actor may have died since the owner prepared.
        if owner not in self._launchers:
            self._launchers[owner] = asyncio.ensure_future(asyncio.to_thread(_prepared, self._config, owner))
        try:
            return await asyncio.shield(self._launchers[owner])
        except Exception:
            self._launchers.pop(owner, None)
            raise


def _prepared(config: SandboxConfig, owner: str) -> Launcher:
    launcher = choose_launcher(config, Owner.parse(owner))
    launcher.prepare()
    return launcher


class EngineBorrower:
    """Launcher of an actor that leaves the engine to another one of its host."""

    own_uids = True

    def __init__(self, call: Call) -> None:
        self._call = functools.partial(call, str(Owner.current()))
        self._root_uid: int | None = None
        self.socket_mode = 0o600

    def prepare(self) -> None:
        self.socket_mode = int(self._call("socket_mode"))

    def launch(self, name: str, socket_directory: Path) -> None:
        self._call("launch", name, str(socket_directory))

    def remove(self, name: str) -> None:
        with contextlib.suppress(SandboxError):  # a container whose actor has gone ends by itself
            self._call("remove", name)

    def root_uid(self, name: str) -> int:
        """Returns the uid of a container's root; raises `ValueError` when it cannot be had, which refuses the peer."""
        if self._root_uid is None:  # the same for every container of the engine
            try:
                self._root_uid = int(self._call("root_uid", name))
            except SandboxError as error:
                raise ValueError(str(error)) from None
        return self._root_uid

    def failure_log(self, name: str) -> str:
        with contextlib.suppress(SandboxError):
            return str(self._call("failure_log", name))
        return ""

    def count_orphans(self) -> int:
        return 0  # counted by the engine's owner

    def close(self) -> None:
        """Nothing is held here."""
