"""A Jupyter kernel for every session: what a notebook runs cells in. Host processes, no isolation."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import secrets
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from subprocess import DEVNULL
from typing import Any

from benchmarks.sandbox_bench import footprint
from benchmarks.sandbox_bench.contender import Contender, Serving, Session, Traits
from benchmarks.sandbox_peers.answers import Unavailable, answer
from codedance_verl.types import Execution

_READY_SECONDS = 60
_PREPARE = """
%matplotlib inline
%config InlineBackend.print_figure_kwargs = {{"bbox_inches": None}}
from PIL import Image
with Image.open({path!r}) as _opened:
    input_image = _opened.convert("RGB")
"""


class Jupyter:
    name = "Jupyter kernels"
    traits = Traits(isolated=False, most_sessions=64, note="a host process and five sockets a session")

    @contextlib.asynccontextmanager
    async def serving(self, sessions: int) -> AsyncIterator[Serving]:
        with tempfile.TemporaryDirectory(prefix="codedance-bench-") as folder:
            yield _Kernels(Path(folder))


class _Kernels:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pids: set[int] = set()

    @contextlib.asynccontextmanager
    async def session(self, image: bytes) -> AsyncIterator[Session]:
        from jupyter_client.manager import AsyncKernelManager

        connection = self._folder / f"{secrets.token_hex(4)}.json"
        manager = AsyncKernelManager(kernel_name="python3", transport="ipc", connection_file=str(connection))
        await manager.start_kernel(cwd=str(self._folder), stdout=DEVNULL, stderr=DEVNULL)
        client = manager.client()
        provisioner: Any = manager.provisioner  # its base class knows no pid
        pid = provisioner.pid
        self._pids.add(pid)
        try:
            client.start_channels()
            await client.wait_for_ready(timeout=_READY_SECONDS)
            path = self._folder / f"{pid}.png"
            path.write_bytes(image)
            kernel = _Kernel(client)
            prepared = await kernel.run(_PREPARE.format(path=str(path)))
            if not prepared.succeeded:
                raise RuntimeError(prepared.error)
            yield kernel
        finally:
            self._pids.discard(pid)
            client.stop_channels()
            await manager.shutdown_kernel(now=True)

    def processes(self) -> list[int]:
        return footprint.descendants(set(self._pids))


class _Kernel:
    def __init__(self, client: Any) -> None:
        self._client = client

    async def run(self, code: str) -> Execution:
        """Sends a cell and collects its output until the kernel is idle again and has confirmed the cell."""
        stdout, images, error = "", [], ""
        request = self._client.execute(code)
        while True:
            message = await self._client.get_iopub_msg()
            if message["parent_header"].get("msg_id") != request:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "stream":
                stdout += content["text"]
            elif kind in ("display_data", "execute_result") and "image/png" in content["data"]:
                images.append(base64.b64decode(content["data"]["image/png"]))
            elif kind == "error":
                error = "\n".join(content["traceback"])
            elif kind == "status" and content["execution_state"] == "idle":
                break
        while (await self._client.get_shell_msg())["parent_header"].get("msg_id") != request:
            await asyncio.sleep(0)
        return await answer(stdout, images, error)


def contender() -> Contender:
    try:
        import ipykernel  # noqa: F401
        import jupyter_client  # noqa: F401
    except ImportError as missing:
        raise Unavailable(f"not installed: {missing.name}") from None
    return Jupyter()
