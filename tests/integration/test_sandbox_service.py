"""Continuity of a node: standby interpreters, recycling, signs of life, queue bounds, draining, state after errors."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import psutil
import pytest
from PIL import Image

from codedance_verl.sandbox.config import SandboxConfig
from codedance_verl.sandbox.errors import SandboxBusy, SandboxFull, SandboxInputError, SandboxUnavailable
from codedance_verl.sandbox.node import SandboxNode
from codedance_verl.sandbox.pool import SandboxPool
from codedance_verl.types import ExecutionStatus

pytestmark = [pytest.mark.asyncio, pytest.mark.slow]

BACKENDS = [pytest.param("docker", marks=pytest.mark.docker), "process"]
PATIENCE_SECONDS = 60.0


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    if request.param == "docker":
        request.getfixturevalue("sandbox_image")
    return str(request.param)


@contextlib.asynccontextmanager
async def started(**settings: Any) -> AsyncIterator[SandboxNode]:
    values = {"containers": 1, "standby_containers": 0, "sessions_per_container": 8, "cell_timeout_s": 30.0} | settings
    node = SandboxNode(SandboxConfig(**values))
    await node.start()
    try:
        yield node
    finally:
        await node.shutdown()


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it does not come about"
        await asyncio.sleep(0.02)


def init_of(name: str) -> psutil.Process | None:
    """The first process of the interpreter of that name."""
    for process in psutil.process_iter(["cmdline", "create_time"]):
        command = process.info["cmdline"] or []
        if name in command and any("codedance_interpreter" in part for part in command):
            parent = process.parent()
            if parent is None or name not in parent.cmdline():
                return process
    return None


def the_init_of(name: str) -> psutil.Process:
    init = init_of(name)
    assert init is not None
    return init


async def test_a_standby_that_was_in_use_when_the_lost_one_came_back_steps_back_once_it_is_empty() -> None:
    """Else sessions would be spread over more interpreters than were asked for."""
    async with started(backend="process", standby_containers=1) as node:
        await until(lambda: node.stats()["standby_containers"] == 1)
        fleet = node._fleet
        assert fleet is not None
        (standby,) = (member for member in fleet._members.values() if not member.serving)
        standby.serving = True
        standby.occupy()
        fleet._balance()  # it cannot step back yet; the other one, empty, does
        (other,) = (member for member in fleet._members.values() if not member.serving)
        other.serving = True
        other.occupy()
        assert len(fleet.load) == 2
        fleet.release(other)
        assert list(fleet.load) == [standby.name]
        fleet.release(standby)


async def test_a_standby_takes_over_and_is_replaced(backend: str) -> None:
    async with started(backend=backend, standby_containers=1) as node:
        await until(lambda: node.stats()["standby_containers"] == 1)
        pool = SandboxPool([node])
        (lost,) = node.stats()["interpreters"]
        async with pool.session() as struck:
            await struck.run("x = 1")
            the_init_of(lost).kill()
            await until(lambda: lost not in node.stats()["interpreters"])
            assert len(node.stats()["interpreters"]) == 1, "nothing was in stock"
            async with pool.session() as fresh:
                assert (await fresh.run("6 * 7")).stdout == "42\n"
            assert (await struck.run("x")).status is ExecutionStatus.KILLED
            assert (await struck.run("'x' in globals()")).stdout == "False\n"
        await until(lambda: node.stats()["standby_containers"] == 1)
        assert node.stats()["restarts"] == 1


async def test_an_interpreter_retires_after_its_share_of_sessions(backend: str) -> None:
    async with started(backend=backend, standby_containers=1, recycle_sessions=2) as node:
        await until(lambda: node.stats()["standby_containers"] == 1)
        pool = SandboxPool([node])
        (old,) = node.stats()["interpreters"]
        async with pool.session() as first:
            await first.run("x = 1")
            async with pool.session() as second:
                await second.run("x = 2")
            await until(lambda: list(node.stats()["interpreters"]) not in ([old], []))
            assert (await first.run("x")).stdout == "1\n", "a retired interpreter keeps its sessions"
            assert init_of(old) is not None
        await until(lambda: init_of(old) is None)
        assert node.stats()["recycled"] == 1 and node.stats()["restarts"] == 0


async def test_an_interpreter_that_gives_no_sign_of_life_is_replaced() -> None:
    async with started(backend="process", health_interval_s=0.3) as node:
        (stuck,) = node.stats()["interpreters"]
        init = the_init_of(stuck)
        for process in [*init.children(recursive=True), init]:
            os.kill(process.pid, signal.SIGSTOP)
        await until(lambda: list(node.stats()["interpreters"]) not in ([stuck], []))
        async with SandboxPool([node]).session() as session:
            assert (await session.run("1")).stdout == "1\n"


async def test_a_zygote_that_dies_costs_no_session(backend: str) -> None:
    async with started(backend=backend) as node:
        pool = SandboxPool([node])
        (name,) = node.stats()["interpreters"]
        async with pool.session() as session:
            await session.run("x = 1")
            zygote = min(the_init_of(name).children(), key=lambda process: process.create_time())
            zygote.kill()
            assert (await session.run("x")).stdout == "1\n"
            async with pool.session() as later:
                assert (await later.run("'x' in globals()")).stdout == "False\n"


async def test_the_queue_is_bounded() -> None:
    async with started(backend="process", sessions_per_container=1, queue_length=1, queue_timeout_s=30.0) as node:
        holder = await node.open()
        waiting = asyncio.create_task(node.open())
        await until(lambda: node.stats()["waiting"] == 1)
        with pytest.raises(SandboxBusy, match="wait"):
            await asyncio.wait_for(node.open(), 5)
        await node.close(holder)
        await asyncio.wait_for(waiting, 10)


async def test_draining_lets_open_sessions_end_and_opens_no_more() -> None:
    async with started(backend="process") as node:
        session_id = await node.open()
        draining = asyncio.create_task(node.drain(30.0))
        await asyncio.sleep(0)
        with pytest.raises(SandboxUnavailable, match="shut down"):
            await node.open()
        assert (await node.run(session_id, "1 + 1")).stdout == "2\n"
        assert not draining.done()
        await node.close(session_id)
        assert await draining == 0


async def test_a_failed_cell_keeps_what_it_did_when_asked_to(backend: str) -> None:
    async with started(backend=backend, on_error="keep") as node, SandboxPool([node]).session() as session:
        failed = await session.run("x = 1\nx = 2; 1/0\nx = 3")
        assert failed.status is ExecutionStatus.ERROR and failed.error is not None
        assert "cell 1, line 2" in failed.error.traceback and "was kept" in failed.error.traceback
        assert (await session.run("x")).stdout == "2\n"
        crashed = await session.run("x = 4; import os; os._exit(1)")
        assert crashed.error is not None and "undone" in crashed.error.traceback
        assert (await session.run("x")).stdout == "2\n"


async def test_a_timeout_tells_where_the_cell_was(backend: str) -> None:
    async with started(backend=backend) as node, SandboxPool([node]).session() as session:
        stopped = await session.run("a = 1\nimport time\ntime.sleep(60)", timeout_s=0.5)
        assert stopped.status is ExecutionStatus.TIMEOUT and stopped.error is not None
        assert "cell 1, line 3: time.sleep(60)" in stopped.error.traceback
        caught = await session.run("try:\n    while True: pass\nexcept KeyboardInterrupt: print('fine')", timeout_s=0.5)
        assert caught.status is ExecutionStatus.TIMEOUT, "an interrupted cell has not succeeded"
        assert (await session.run("'a' in globals()")).stdout == "False\n"


async def test_an_image_that_breaks_off_is_named_at_the_first_call_and_costs_nobody_else(backend: str) -> None:
    whole = io.BytesIO()
    Image.effect_noise((300, 200), 90).save(whole, "JPEG")
    broken = whole.getvalue()[: len(whole.getvalue()) // 2]
    async with started(backend=backend) as node:
        pool = SandboxPool([node])
        async with pool.session(whole.getvalue()) as sound, pool.session(broken) as session:
            for _ in range(2):  # it stays broken
                with pytest.raises(SandboxInputError, match="truncated"):
                    await session.run("1")
            assert (await sound.run("input_image.size, input_image.mode")).stdout == "((300, 200), 'RGB')\n"


async def test_an_image_that_does_not_fit_in_a_session_is_the_sandbox_s_fault_and_the_setting_is_named(
    backend: str,
) -> None:
    image = io.BytesIO()
    Image.new("RGB", (5000, 5000)).save(image, "PNG")
    async with started(backend=backend, session_memory_mb=64) as node:
        pool = SandboxPool([node])
        async with pool.session(image.getvalue()) as session:
            for _ in range(2):  # each call opens anew
                with pytest.raises(SandboxFull, match=r"sandbox\.session_memory_mb=64: raise it"):
                    await session.run("1")
        assert node.stats()["sessions"] == 0
        async with pool.session() as small:
            assert (await small.run("6 * 7")).stdout == "42\n"


FILL = "with open('mine', 'wb', buffering=0) as file:\n    while file.write(bytes(1 << 16)): pass"
SAYS_THAT_IT_IS_FULL = (
    "import sys\n"
    "of = [m for n, m in sys.modules.items() if n.endswith('codedance_interpreter.offered')][0]\n"
    "def refuse(self, code): raise of.NoRoom('files')\n"
    "of.OfferedFiles.provide = refuse"
)


@pytest.mark.docker
async def test_a_session_keeps_its_variables_while_its_image_files_find_no_room(sandbox_image: str) -> None:
    image = io.BytesIO()
    Image.effect_noise((900, 600), 90).convert("RGB").save(image, "PNG")
    async with started(backend="docker", scratch_mb=16, memory_mb=1024) as node:
        pool = SandboxPool([node])
        async with pool.session(image.getvalue()) as session, pool.session() as neighbour:
            assert (await session.run("x = 1")).status is ExecutionStatus.NO_OUTPUT
            assert (await neighbour.run(FILL)).status is ExecutionStatus.ERROR
            for _ in range(2):
                with pytest.raises(SandboxFull, match=r"sandbox\.scratch_mb"):
                    await session.run("open('input_image.png')")
            await neighbour.run("import os\nos.remove('mine')")
            ran = await session.run("import os\nx, os.path.exists('input_image.png')")
            assert ran.stdout == "(1, True)\n"
            failed = await session.run("y = 2\n1 / 0")
            assert failed.status is ExecutionStatus.ERROR
            assert (await session.run("x, 'y' in globals()")).stdout == "(1, False)\n"


@pytest.mark.docker
async def test_a_session_that_fills_the_file_space_itself_finds_no_file_and_is_not_excused(sandbox_image: str) -> None:
    image = io.BytesIO()
    Image.effect_noise((900, 600), 90).convert("RGB").save(image, "PNG")
    docker = started(backend="docker", scratch_mb=16, memory_mb=1024)
    async with docker as node, SandboxPool([node]).session(image.getvalue()) as session:
        assert (await session.run(FILL)).status is ExecutionStatus.ERROR
        failed = await session.run("open('input_image.png')")
        assert failed.error is not None and failed.error.kind == "FileNotFoundError"
        assert (await session.run(SAYS_THAT_IT_IS_FULL)).status is ExecutionStatus.NO_OUTPUT
        assert (await session.run("open('input_image.png')")).status is ExecutionStatus.ERROR


async def test_a_session_that_says_without_cause_that_there_is_no_room_has_failed(backend: str) -> None:
    image = io.BytesIO()
    Image.new("RGB", (30, 20)).save(image, "PNG")
    async with started(backend=backend) as node, SandboxPool([node]).session(image.getvalue()) as session:
        assert (await session.run(SAYS_THAT_IT_IS_FULL)).status is ExecutionStatus.NO_OUTPUT
        assert (await session.run("open('input_image.png')")).status is ExecutionStatus.ERROR


async def test_image_files_are_there_for_cells_that_read_them_after_any_failure(backend: str) -> None:
    image = io.BytesIO()
    Image.effect_noise((60, 40), 90).convert("RGB").save(image, "PNG")
    async with started(backend=backend) as node, SandboxPool([node]).session(image.getvalue()) as session:
        listing = "import os\nsorted(os.listdir('.'))"
        assert (await session.run("input_image.size")).stdout == "(60, 40)\n"
        failed = await session.run("import cv2\ncv2.imread('input_image.png').shape\n1 / 0")
        assert failed.status is ExecutionStatus.ERROR
        again = await session.run("import cv2\ncv2.imread('input_image.png').shape")
        assert again.stdout == "(40, 60, 3)\n"
        assert (await session.run(listing)).stdout == "['input_image.jpg', 'input_image.png', 'input_image_0.png']\n"


async def test_sessions_of_one_question_share_its_image_and_what_one_draws_is_its_own(backend: str) -> None:
    image = io.BytesIO()
    Image.effect_noise((600, 400), 90).convert("RGB").save(image, "PNG")
    draw = "input_image.paste((1, 2, 3), (0, 0, 600, 400)); input_image.getcolors()"
    async with started(backend=backend) as node:
        pool = SandboxPool([node])
        async with pool.session(image.getvalue()) as one, pool.session(image.getvalue()) as two:
            before = (await two.run("import hashlib\nhashlib.sha256(input_image.tobytes()).hexdigest()")).stdout
            assert (await one.run(draw)).stdout == "[(240000, (1, 2, 3))]\n"
            failed = await one.run("input_image.paste((9, 9, 9), (0, 0, 600, 400)); 1 / 0")
            assert failed.status is ExecutionStatus.ERROR
            assert (await one.run("input_image.getcolors()")).stdout == "[(240000, (1, 2, 3))]\n"
            after = "hashlib.sha256(input_image.tobytes()).hexdigest()"
            assert (await two.run(after)).stdout == before
            # The file is that of the question, whatever was drawn.
            written = "import cv2\nhashlib.sha256(cv2.imread('input_image.png')[..., ::-1].tobytes()).hexdigest()"
            assert (await two.run(written)).stdout == before
            assert (await one.run("import hashlib\n" + written)).stdout == before


async def test_images_that_no_session_uses_are_given_up_and_no_descriptor_is_left(backend: str) -> None:
    async with started(backend=backend, kept_images_mb=0) as node:
        (name,) = node.stats()["interpreters"]
        zygote = next(child for child in the_init_of(name).children() if child.num_fds() > 0)
        pool = SandboxPool([node])
        async with pool.session():
            pass
        before = zygote.num_fds()
        for number in range(40):
            image = io.BytesIO()
            Image.new("RGB", (30, 20), (number, 0, 0)).save(image, "PNG")
            async with pool.session(image.getvalue()) as session:
                assert (await session.run("input_image.getpixel((0, 0))")).stdout == f"({number}, 0, 0)\n"
        await until(lambda: zygote.num_fds() <= before)


@pytest.mark.docker
@pytest.mark.parametrize(("held_mb", "kept"), [(0, False), (360, True)])
async def test_an_idle_runner_that_is_killed_costs_its_variables_unless_memory_was_short(
    sandbox_image: str, held_mb: int, kept: bool
) -> None:
    async with started(backend="docker", memory_mb=512) as node:
        pool = SandboxPool([node])
        async with pool.session() as session, pool.session() as neighbour:
            uid = int((await session.run("import os; os.getuid()")).stdout)
            assert (await neighbour.run(f"held = bytearray(b'1') * ({held_mb} << 20)")).succeeded
            assert (await session.run("x = 1")).succeeded
            await asyncio.sleep(0.5)
            mine = {
                process.pid: process
                for process in psutil.process_iter(["uids", "status"])
                if process.info["uids"].real == uid and process.info["status"] != psutil.STATUS_ZOMBIE
            }
            assert len(mine) == 1 + kept, "a checkpoint beside the runner"
            next(process for process in mine.values() if process.ppid() not in mine).kill()
            await asyncio.sleep(0.5)  # its supervisor hears of it
            after = await session.run("x")
            assert (after.stdout == "1\n") if kept else (after.status is ExecutionStatus.KILLED), after
            assert (await session.run("6 * 7")).stdout == "42\n"
