"""One connection to a `repl` program: many calls may be under way, each is answered by its number."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
import struct
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgpack  # type: ignore[import-untyped]

from benchmarks.sandbox_peers.answers import answer
from codedance_verl.types import Execution

Message = dict[str, Any]


class Line:
    """`chunks` is what the program writes, `write` sends to it."""

    def __init__(self, chunks: AsyncIterator[bytes], write: Callable[[bytes], None]) -> None:
        self._write = write
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Future[Message]] = {}
        self._reader = asyncio.create_task(self._read(chunks))

    async def ask(self, **request: Any) -> Message:
        """Sends a request and waits for its answer. Raises `ConnectionError` when the program has ended."""
        if self._reader.done():
            raise ConnectionError("the interpreter has ended")
        number = next(self._numbers)
        self._waiting[number] = asyncio.get_running_loop().create_future()
        body: bytes = msgpack.packb({"call": number, **request})
        self._write(struct.pack(">I", len(body)) + body)
        try:
            return await self._waiting[number]
        finally:
            del self._waiting[number]

    @contextlib.asynccontextmanager
    async def session(self, image: bytes) -> AsyncIterator[LineSession]:
        """A namespace of its own in the program."""
        name = secrets.token_hex(8)
        opened = await self.ask(op="open", session=name, image=image)
        if opened["error"]:
            raise RuntimeError(opened["error"])
        try:
            yield LineSession(self, name)
        finally:
            with contextlib.suppress(ConnectionError):
                await self.ask(op="close", session=name)

    def close(self) -> None:
        self._reader.cancel()

    async def _read(self, chunks: AsyncIterator[bytes]) -> None:
        data = bytearray()
        try:
            async for chunk in chunks:
                data += chunk
                while len(data) >= 4 and len(data) >= (end := 4 + struct.unpack_from(">I", data)[0]):
                    self._settle(msgpack.unpackb(bytes(data[4:end])))
                    del data[:end]
        finally:
            for waiting in self._waiting.values():
                if not waiting.done():
                    waiting.set_exception(ConnectionError("the interpreter has ended"))

    def _settle(self, message: Message) -> None:
        waiting = self._waiting.get(message["call"])
        if waiting is not None and not waiting.done():
            waiting.set_result(message)


class LineSession:
    def __init__(self, line: Line, name: str) -> None:
        self._line = line
        self._name = name

    async def run(self, code: str) -> Execution:
        found = await self._line.ask(op="run", session=self._name, code=code)
        return await answer(found["stdout"], found["images"], found["error"])
