"""The easy way: as many host processes as there are cores, sessions are namespaces in them. Fast, and no isolation.

What a cell changes globally, or breaks, it changes for the others of its process; one that hangs stops them.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from benchmarks.sandbox_bench.contender import Contender, Serving, Session, Traits
from benchmarks.sandbox_peers import repl
from benchmarks.sandbox_peers.line import Line

_CHUNK = 1 << 18
_END_SECONDS = 5


class Processes:
    def __init__(self, workers: int) -> None:
        self._workers = workers
        self.name = "plain processes"
        self.traits = Traits(isolated=False, note=f"{workers} host processes, a namespace each, nothing undone")

    @contextlib.asynccontextmanager
    async def serving(self, sessions: int) -> AsyncIterator[Serving]:
        async with contextlib.AsyncExitStack() as stack:
            started = [await stack.enter_async_context(worker()) for _ in range(self._workers)]
            yield _Pool([line for _, line in started], [process.pid for process, _ in started])


class _Pool:
    def __init__(self, lines: list[Line], pids: list[int]) -> None:
        self._turns = itertools.cycle(lines)
        self._pids = pids

    def session(self, image: bytes) -> AbstractAsyncContextManager[Session]:
        return next(self._turns).session(image)

    def processes(self) -> list[int]:
        return self._pids


@contextlib.asynccontextmanager
async def worker() -> AsyncIterator[tuple[Process, Line]]:
    """Starts one process; it ends with the block."""
    process = await asyncio.create_subprocess_exec(sys.executable, Path(repl.__file__), stdin=PIPE, stdout=PIPE)
    assert process.stdin is not None and process.stdout is not None
    line = Line(_chunks(process.stdout), process.stdin.write)
    try:
        yield process, line
    finally:
        process.stdin.close()
        line.close()
        try:
            await asyncio.wait_for(process.wait(), _END_SECONDS)
        except TimeoutError:
            process.kill()
            await process.wait()


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while chunk := await reader.read(_CHUNK):
        yield chunk


def contender() -> Contender:
    return Processes(len(os.sched_getaffinity(0)))
