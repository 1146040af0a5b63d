"""The package llm-sandbox with its pool of Docker containers, one to a session, made from the project's own image.

It starts a new Python for every call, so variables do not outlive a cell. A call copies the code into the container
and runs it there; images come back as text on stdout, since that is the only way out that is not a file copy more.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import os
import tempfile
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import docker
from docker import DockerClient

from benchmarks.sandbox_bench import footprint
from benchmarks.sandbox_bench.contender import Contender, Serving, Session, Traits
from benchmarks.sandbox_peers import repl
from benchmarks.sandbox_peers.answers import Unavailable, answer
from codedance_verl.sandbox.docker import engine, image, reaper
from codedance_verl.types import Execution

ENGINE_SECONDS = 120
START_SECONDS = 90
LABEL = "io.codedance.bench"
_FOLDER = "/sandbox"
_PYTHON = f"{_FOLDER}/.sandbox-venv/bin/python"
_START = f"mkdir -p $(dirname {_PYTHON}) && ln -s $(command -v python3) {_PYTHON} && exec sleep infinity"
"""Uses the image's own Python where the package would else make an environment of its own, over the network."""
_CELL = """
import base64, json, sys
sys.path.insert(0, {folder!r})
import repl
session = repl.Repl()
session.open("only", {image})
found = session.run("only", {code!r})
found["images"] = [base64.b64encode(png).decode() for png in found["images"]]
print(json.dumps(found))
"""


class LlmSandbox:
    name = "llm-sandbox"
    traits = Traits(isolated=True, stateful=False, most_sessions=64, note="pooled containers, a new Python every call")

    @contextlib.asynccontextmanager
    async def serving(self, sessions: int) -> AsyncIterator[Serving]:
        client = docker.from_env(timeout=ENGINE_SECONDS, max_pool_size=2 * sessions + 4)
        with contextlib.closing(client), ThreadPoolExecutor(sessions + 1) as threads:
            tag = image.require_image(client, "auto")
            loop = asyncio.get_running_loop()
            pool = _pool(client, tag, sessions)
            try:
                await loop.run_in_executor(threads, _fill, pool, sessions)
                yield _Pool(client, pool, threads)
            finally:
                await loop.run_in_executor(threads, _empty, client, pool)


class _Pool:
    def __init__(self, client: DockerClient, pool: Any, threads: ThreadPoolExecutor) -> None:
        self._client = client
        self._pool = pool
        self._threads = threads

    @contextlib.asynccontextmanager
    async def session(self, image: bytes) -> AsyncIterator[Session]:
        from llm_sandbox.pool import PooledSandboxSession

        loop = asyncio.get_running_loop()
        backing = PooledSandboxSession(pool_manager=self._pool, workdir=_FOLDER)
        await loop.run_in_executor(self._threads, _open, backing, image)
        try:
            yield _Session(backing, self._threads)
        finally:
            await loop.run_in_executor(self._threads, backing.close)

    def processes(self) -> list[int]:
        containers = _containers(self._client)
        roots = [self._client.api.inspect_container(name)["State"]["Pid"] for name in containers]
        return sorted({*footprint.descendants(roots), *footprint.processes_naming(containers)} if containers else ())


class _Session:
    def __init__(self, backing: Any, threads: ThreadPoolExecutor) -> None:
        self._backing = backing
        self._threads = threads

    async def run(self, code: str) -> Execution:
        opened = f"open('{_FOLDER}/input_image.png', 'rb').read()" if "input_image" in code else "None"
        cell = _CELL.format(folder=_FOLDER, image=opened, code=code)
        output = await asyncio.get_running_loop().run_in_executor(self._threads, self._backing.run, cell)
        if output.exit_code:
            return await answer(output.stdout, [], output.stderr or output.stdout)
        found = json.loads(output.stdout)
        return await answer(found["stdout"], [base64.b64decode(text) for text in found["images"]], found["error"])


def _pool(client: DockerClient, tag: str, sessions: int) -> Any:
    from llm_sandbox import SandboxBackend, SupportedLanguage
    from llm_sandbox.pool import PoolConfig, create_pool_manager

    logging.getLogger("llm_sandbox").setLevel(logging.CRITICAL)
    return create_pool_manager(
        backend=SandboxBackend.DOCKER,
        config=PoolConfig(max_pool_size=sessions, min_pool_size=sessions, acquisition_timeout=float(ENGINE_SECONDS)),
        lang=SupportedLanguage.PYTHON,
        client=client,
        image=tag,
        skip_environment_setup=True,
        runtime_configs={
            "entrypoint": ["sh", "-c", _START],
            "network_mode": "none",
            "labels": {LABEL: str(os.getpid()), **reaper.labels(reaper.Owner.current())},
        },
    )


def _fill(pool: Any, sessions: int) -> None:
    """Waits until the pool has started all its containers."""
    deadline = time.monotonic() + START_SECONDS
    while pool.get_stats()["total_size"] < sessions:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{pool.get_stats()['total_size']} of {sessions} containers within {START_SECONDS} s")
        time.sleep(0.1)


def _empty(client: DockerClient, pool: Any) -> None:
    """Removes the containers at once; the pool itself would wait ten seconds for each."""
    for name in _containers(client):
        reaper.remove_container(client, name)
    pool.close()


def _containers(client: DockerClient) -> list[str]:
    found = client.api.containers(filters={"label": f"{LABEL}={os.getpid()}"}, quiet=True)
    return [item["Id"] for item in found]


def _open(backing: Any, image_file: bytes) -> None:
    backing.open()
    with tempfile.TemporaryDirectory(prefix="codedance-bench-") as folder:
        path = Path(folder) / "input_image.png"
        path.write_bytes(image_file)
        backing.copy_to_runtime(str(path), f"{_FOLDER}/input_image.png")
    backing.copy_to_runtime(repl.__file__, f"{_FOLDER}/repl.py")


def contender() -> Contender:
    try:
        import llm_sandbox  # noqa: F401
    except ImportError:
        raise Unavailable("not installed: llm-sandbox") from None
    if engine.connect() is None:
        raise Unavailable("no Docker engine answers")
    return LlmSandbox()
