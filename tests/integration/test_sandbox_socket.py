"""Sessions over the socket of a node that runs real interpreters, beside the same sessions by calls of its actor."""

from __future__ import annotations

import asyncio
import dataclasses
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from PIL import Image

from codedance_verl.sandbox.config import SandboxConfig
from codedance_verl.sandbox.errors import NodeLost, SandboxInputError
from codedance_verl.sandbox.local_session import LocalSession
from codedance_verl.sandbox.ray_node import SandboxNodeActor
from codedance_verl.sandbox.returned_images import BadImage, with_decoded_images
from codedance_verl.types import Execution, ExecutionStatus

pytestmark = [pytest.mark.asyncio, pytest.mark.slow]

CONFIG = SandboxConfig(backend="process", containers=1, standby_containers=0, cores_per_actor=4096, cell_timeout_s=30.0)
SOON = 30.0
CELLS = [
    "x = 40; input_image.size",
    "x + 2",
    "1/0",
    "x",
    "print('\ud800 é \\x1b[31m')",
    "while True: pass",
    "import os; os._exit(3)",
    "[display(input_image.resize((90, 70 + n))) for n in range(2)]; None",
    "print('a' * 200_000)",
    "y = 1",
]


def png() -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((120, 80), 50).convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()


@pytest_asyncio.fixture
async def actor() -> AsyncIterator[SandboxNodeActor]:
    """A node actor of this process: without Ray, which has no part in its calls."""
    actor = SandboxNodeActor(CONFIG)
    yield actor
    await actor.shutdown()


async def _sessions(actor: SandboxNodeActor) -> int:
    assert actor._node is not None
    return int(actor._node.stats()["sessions"])


async def _until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(SOON):
        while not await condition():
            await asyncio.sleep(0.05)


def _timeless(execution: Execution) -> Execution:
    return dataclasses.replace(with_decoded_images(execution, CONFIG.max_image_pixels), duration_s=0.0, queue_s=0.0)


async def test_both_ways_give_the_same_executions(actor: SandboxNodeActor) -> None:
    image = png()
    session = LocalSession(Path(await actor.client_socket()), "socket", CONFIG)
    await session.open([image, image])
    await actor.open([image, image], "call")
    for cell in CELLS:
        timeout_s = 1.0 if cell.startswith("while") else None
        by_socket, by_call = await session.run(cell, timeout_s), await actor.run("call", cell, timeout_s)
        assert _timeless(by_socket) == _timeless(by_call)
        assert by_socket.duration_s > 0
    await session.close()
    await actor.close("call")


async def test_a_client_that_leaves_ends_its_cell_and_gives_its_place_back(actor: SandboxNodeActor) -> None:
    session = LocalSession(Path(await actor.client_socket()), "a", CONFIG)
    await session.open([])
    running = asyncio.create_task(session.run("import time; time.sleep(25)", None))
    await asyncio.sleep(0.5)
    assert await _sessions(actor) == 1
    running.cancel()
    await session.close()

    async def gone() -> bool:
        node = actor._node
        return node is not None and await _sessions(actor) == 0 and not any(node.stats()["interpreters"].values())

    await _until(gone)


async def test_an_actor_that_is_shut_down_ends_the_sessions_of_its_socket(actor: SandboxNodeActor) -> None:
    path = Path(await actor.client_socket())
    session = LocalSession(path, "a", CONFIG)
    await session.open([])
    running = asyncio.create_task(session.run("import time; time.sleep(25)", None))
    await asyncio.sleep(0.5)
    async with asyncio.timeout(SOON):
        await actor.shutdown()
    with pytest.raises(NodeLost):
        await running
    assert not path.parent.exists()


async def test_an_image_of_a_question_that_is_none_is_told_as_by_a_call(actor: SandboxNodeActor) -> None:
    session = LocalSession(Path(await actor.client_socket()), "a", CONFIG)
    with pytest.raises(SandboxInputError):
        await session.open([b"junk"])
    assert await _sessions(actor) == 0


async def test_an_image_that_a_session_has_forged_is_found_by_the_node_or_by_the_client(
    actor: SandboxNodeActor,
) -> None:
    forged = """
import codedance_interpreter.png as png, struct, zlib
def chunk(kind, data): return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
head = b"\\x89PNG\\r\\n\\x1a\\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", {width}, 8, 8, 2, 0, 0, 0))
made = head + chunk(b"IDAT", zlib.compress(b"few")) + chunk(b"IEND", b"")
png.encode = lambda image: made
png._chunks = lambda image: iter([made])
from PIL import Image
Image.new("RGB", (8, 8))
"""
    for width, ends in ((8, ExecutionStatus.OK), (1 << 30, ExecutionStatus.KILLED)):
        session = LocalSession(Path(await actor.client_socket()), str(width), CONFIG)
        await session.open([])
        execution = await session.run(forged.format(width=width), None)
        assert execution.status is ends
        if ends is ExecutionStatus.OK:
            with pytest.raises(BadImage):
                with_decoded_images(execution, CONFIG.max_image_pixels)
        await session.close()
