"""A container for every session, from the project's own image: a Python over the container's attached stdin and stdout.

The containers are hardened as the project's are. The Python imports what a cell asks for when it asks.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import docker
from docker.errors import APIError

from benchmarks.sandbox_bench import footprint
from benchmarks.sandbox_bench.contender import Contender, Serving, Session, Traits
from benchmarks.sandbox_peers import repl
from benchmarks.sandbox_peers.answers import Unavailable
from benchmarks.sandbox_peers.line import Line
from codedance_verl.sandbox.config import SandboxConfig
from codedance_verl.sandbox.docker import engine, image, reaper
from codedance_verl.sandbox.docker.sizing import sized

if TYPE_CHECKING:
    from docker import DockerClient

ENGINE_SECONDS = 120
_STDOUT = 1
_STREAM_HEADER = ">BxxxI"
HOME = "/session"
"""Neither in the image nor a working directory: a tmpfs over such a folder would take its permissions."""

_STARTING_AT_ONCE = 8
_START = 'cd /session && cp -r /opt/codedance/matplotlib . && exec python3 -c "$0"'
"""Matplotlib reads its list of fonts, seconds of work to make, only from a folder it may write to."""
_LIMITS = sized(SandboxConfig())


class Containers:
    name = "a container each"
    traits = Traits(isolated=True, most_sessions=64, note="hardened container and fresh Python a session, stays warm")

    @contextlib.asynccontextmanager
    async def serving(self, sessions: int) -> AsyncIterator[Serving]:
        client = docker.from_env(timeout=ENGINE_SECONDS, max_pool_size=2 * _STARTING_AT_ONCE)
        with contextlib.closing(client), ThreadPoolExecutor(_STARTING_AT_ONCE) as threads:
            yield _Engine(client, image.require_image(client, "auto"), threads)


class _Engine:
    def __init__(self, client: DockerClient, tag: str, threads: ThreadPoolExecutor) -> None:
        self._client = client
        self._tag = tag
        self._threads = threads
        self._live: set[str] = set()

    @contextlib.asynccontextmanager
    async def session(self, image: bytes) -> AsyncIterator[Session]:
        loop = asyncio.get_running_loop()
        container, stream = await loop.run_in_executor(self._threads, self._start)
        self._live.add(container)
        try:
            reader, writer = await asyncio.open_unix_connection(sock=stream)
            line = Line(_stdout_of(reader), writer.write)
            try:
                async with line.session(image) as session:
                    yield session
            finally:
                line.close()
                writer.close()
        finally:
            self._live.discard(container)
            await loop.run_in_executor(self._threads, self._remove, container)

    def processes(self) -> list[int]:
        live = set(self._live)
        roots = [self._client.api.inspect_container(container)["State"]["Pid"] for container in live]
        return sorted({*footprint.descendants(roots), *footprint.processes_naming(live)} if live else ())

    def _start(self) -> tuple[str, socket.socket]:
        api = self._client.api
        hosting = api.create_host_config(
            network_mode="none",
            read_only=True,
            tmpfs={HOME: f"rw,nosuid,nodev,noexec,size={_LIMITS.scratch_mb}m,mode=1777"},
            cap_drop=["ALL"],
            security_opt=["no-new-privileges:true"],
            mem_limit=f"{_LIMITS.memory_mb}m",
            pids_limit=_LIMITS.session_processes,
            auto_remove=True,
        )
        created = api.create_container(
            self._tag,
            entrypoint=["sh", "-c", _START, Path(repl.__file__).read_text(encoding="utf-8")],
            command=[],
            stdin_open=True,  # and closed for good when this process closes it, dead or alive: the container then ends
            user="10001:10001",
            environment={"MPLCONFIGDIR": f"{HOME}/matplotlib", "OPENBLAS_NUM_THREADS": "1"},
            labels=reaper.labels(reaper.Owner.current()),
            host_config=hosting,
        )
        container: str = created["Id"]
        try:
            attached: Any = api.attach_socket(container, params={"stdin": 1, "stdout": 1, "stream": 1})
            api.start(container)
        except BaseException:
            self._remove(container)
            raise
        stream: socket.socket = attached._sock.dup()
        attached.close()
        return container, stream

    def _remove(self, container: str) -> None:
        with contextlib.suppress(APIError):
            reaper.remove_container(self._client, container)


async def _stdout_of(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """Standard output of the container, taken out of the engine's stream of both outputs."""
    with contextlib.suppress(asyncio.IncompleteReadError):
        while True:
            kind, length = struct.unpack(_STREAM_HEADER, await reader.readexactly(struct.calcsize(_STREAM_HEADER)))
            chunk = await reader.readexactly(length)
            if kind == _STDOUT:
                yield chunk


def contender() -> Contender:
    if engine.connect() is None:
        raise Unavailable("no Docker engine answers")
    return Containers()
