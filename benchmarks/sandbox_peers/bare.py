"""The limit: `exec` in the measuring process itself, one caller, nothing between caller and code."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from benchmarks.sandbox_bench.contender import Contender, Serving, Session, Traits
from benchmarks.sandbox_peers.answers import decode
from benchmarks.sandbox_peers.repl import Repl
from codedance_verl.types import Execution, ExecutionError, ExecutionStatus


class Bare:
    name = "bare exec"
    traits = Traits(isolated=False, most_sessions=1, note="in the measuring process, one caller")

    @contextlib.asynccontextmanager
    async def serving(self, sessions: int) -> AsyncIterator[Serving]:
        yield _Process()


class _Process:
    def __init__(self) -> None:
        self._repl = Repl()

    @contextlib.asynccontextmanager
    async def session(self, image: bytes) -> AsyncIterator[Session]:
        self._repl.open("only", image)
        yield _Interpreter(self._repl)

    def processes(self) -> list[int]:
        return []  # it is the measuring process itself


class _Interpreter:
    def __init__(self, repl: Repl) -> None:
        self._repl = repl

    async def run(self, code: str) -> Execution:
        found = self._repl.run("only", code)
        if found["error"]:
            error = ExecutionError("Error", "", found["error"])
            return Execution(ExecutionStatus.ERROR, found["stdout"], error)
        return Execution(ExecutionStatus.OK, found["stdout"], None, tuple(map(decode, found["images"])))


def contender() -> Contender:
    return Bare()
