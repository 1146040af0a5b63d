"""Interpreter that runs no cells: it answers each at once, so that what is measured is the host's side.

    python -m benchmarks.sandbox_host.stub --socket PATH --name NAME

It connects as a container does (init, zygote, one connection a session) and speaks the same frames. Code `crop` is
answered with an image of 256 x 256 pixels that does not pack, all other code with a line.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from PIL import Image

from codedance_verl.sandbox import wire
from codedance_verl.sandbox.docker.launcher import SOCKET_NAME
from sandbox_image.codedance_interpreter import png

CROP = "crop"
_STOP_SECONDS = 5.0
_HELLO = {"op": "hello", "version": wire.VERSION}
_RESULT: dict[str, Any] = {"op": "result", "outcome": "done", "error": None, "truncated": []}


class StubLauncher:
    """Launcher of stub interpreters, a process each; `pids` are those that run."""

    own_uids = True
    socket_mode = 0o600

    def __init__(self) -> None:
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self._running.values()]

    def prepare(self) -> None:
        """Nothing is needed."""

    def launch(self, name: str, socket_directory: Path) -> None:
        command = [sys.executable, "-m", "benchmarks.sandbox_host.stub", "--name", name]
        self._running[name] = subprocess.Popen([*command, "--socket", str(socket_directory / SOCKET_NAME)])

    def remove(self, name: str) -> None:
        process = self._running.pop(name, None)
        if process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_SECONDS)
            process.kill()

    def root_uid(self, name: str) -> int:
        return os.geteuid()

    def failure_log(self, name: str) -> str:
        return ""

    def count_orphans(self) -> int:
        return 0

    def close(self) -> None:
        """Nothing is held."""


class _Stub:
    def __init__(self, path: Path, name: str) -> None:
        self._path = path
        self._name = name
        self._sessions: set[asyncio.Task[None]] = set()
        self._crop = {"png": png.encode(Image.effect_noise((256, 256), 90).convert("RGB")), "width": 256, "height": 256}

    async def serve(self) -> None:
        """Serves until the host closes the connection of the init process."""
        init = await self._connect({"role": "init", "pid": os.getpid(), "uid_span": 1 << 32})
        zygote = asyncio.create_task(self._zygote())
        while (message := await init.receive()) is not None:
            match message["op"]:
                case "kill":
                    init.send({"op": "killed", "session": message["session"]})
                case "ping":
                    init.send({"op": "pong", "memory_bytes": 1})
        zygote.cancel()

    async def _zygote(self) -> None:
        peer = await self._connect({"role": "zygote", "pid": os.getpid(), "modules": []})
        while (message := await peer.receive()) is not None:
            if message["op"] == "ping":
                peer.send({"op": "pong", "memory_bytes": 1})
            elif message["op"] == "open":
                session = asyncio.create_task(self._session(message["session"]))
                self._sessions.add(session)
                session.add_done_callback(self._sessions.discard)

    async def _session(self, key: str) -> None:
        peer = await self._connect({"role": "session", "session": key})
        peer.send({"op": "ready", "leader": 0})
        while (message := await peer.receive()) is not None:
            if message["op"] == "run":
                crop = message["code"] == CROP
                peer.send({**_RESULT, "call": message["call"], "stdout": "2\n", "images": [self._crop] if crop else []})
        peer.close()

    async def _connect(self, hello: dict[str, Any]) -> wire.Peer:
        peer = await wire.connect(self._path)
        peer.send({**_HELLO, "name": self._name, **hello})
        return peer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--socket", type=Path, required=True, help="the node's socket")
    parser.add_argument("--name", required=True, help="the interpreter's name")
    given = parser.parse_args()
    asyncio.run(_Stub(given.socket, given.name).serve())


if __name__ == "__main__":
    main()
