"""A host process for every session: a Python that is started for it and ends with it. No isolation, no stock."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager

from benchmarks.sandbox_bench.contender import Contender, Serving, Session, Traits
from benchmarks.sandbox_peers.processes import worker


class FreshProcesses:
    name = "a process each"
    traits = Traits(isolated=False, note="a host Python a session, started for it; imports what a cell asks for")

    @contextlib.asynccontextmanager
    async def serving(self, sessions: int) -> AsyncIterator[Serving]:
        yield _Starter()


class _Starter:
    def __init__(self) -> None:
        self._pids: set[int] = set()

    def session(self, image: bytes) -> AbstractAsyncContextManager[Session]:
        return self._session(image)

    @contextlib.asynccontextmanager
    async def _session(self, image: bytes) -> AsyncIterator[Session]:
        async with worker() as (process, line):
            self._pids.add(process.pid)
            try:
                async with line.session(image) as session:
                    yield session
            finally:
                self._pids.discard(process.pid)

    def processes(self) -> list[int]:
        return sorted(self._pids)


def contender() -> Contender:
    return FreshProcesses()
