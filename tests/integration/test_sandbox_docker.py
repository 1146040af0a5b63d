"""Properties of containers alone: isolation, and recovery from the loss of any part."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from PIL import Image

from codedance_verl.sandbox.config import SandboxConfig
from codedance_verl.sandbox.docker import reaper
from codedance_verl.sandbox.docker.container import cgroup_parent
from codedance_verl.sandbox.docker.sizing import ImageLoad, sized
from codedance_verl.sandbox.errors import SandboxFull, UnknownSession
from codedance_verl.sandbox.node import SandboxNode
from codedance_verl.sandbox.pool import SandboxPool, SandboxSession
from codedance_verl.types import ExecutionStatus

if TYPE_CHECKING:
    from docker import DockerClient

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow, pytest.mark.docker]

CONFIG = SandboxConfig(
    backend="docker",
    containers=2,
    sessions_per_container=8,
    cell_timeout_s=30.0,
    queue_timeout_s=60.0,
    lease_ttl_s=600.0,
    memory_mb=640,
    session_memory_mb=256,
    session_processes=16,
    scratch_mb=32,
)
GONE_SECONDS = 15.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node(sandbox_image: str) -> AsyncIterator[SandboxNode]:
    """Two containers, shared by the tests of this file."""
    node = SandboxNode(CONFIG)
    await node.start()
    await until(lambda: len(node.stats()["interpreters"]) == 2, 60)
    yield node
    await node.shutdown()


@pytest_asyncio.fixture(loop_scope="module")
async def session(node: SandboxNode) -> AsyncIterator[SandboxSession]:
    async with SandboxPool([node]).session() as session:
        yield session


async def until(condition: object, seconds: float) -> None:
    """Waits until `condition()` holds; fails when it does not within `seconds`."""
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s"
        await asyncio.sleep(0.05)


def containers_of(engine: DockerClient, pid: int) -> list[str]:
    """Names of the containers, running or not, whose owner is process `pid`."""
    owners = {item.name: reaper.owner_of(item) for item in reaper.list_containers(engine)}
    return [str(name) for name, owner in owners.items() if owner is not None and owner.pid == pid]


async def pid_of_zygote(engine: DockerClient, name: str) -> int:
    processes = engine.containers.get(name).top(ps_args="-eo pid,ppid,uid")["Processes"]
    roots = [(int(pid), int(parent)) for pid, parent, uid in processes if uid == "0"]
    init = next(pid for pid, parent in roots if parent not in dict(roots))
    return next(pid for pid, parent in roots if parent == init)


async def test_a_session_has_a_uid_of_its_own_and_no_capability(node: SandboxNode) -> None:
    uids = []
    for _ in range(2):
        async with SandboxPool([node]).session() as session:
            told = await session.run(
                "import os\nwith open('/proc/self/status') as f: s = dict(l.split(':', 1) for l in f)\n"
                "print(os.getuid(), *s['Uid'].split(), *s['Gid'].split(), s['Groups'].strip() or '-')\n"
                "print(*{s[k].strip() for k in ('CapEff', 'CapPrm', 'CapInh', 'CapAmb')}, s['NoNewPrivs'].strip())"
            )
            first, second = told.stdout.splitlines()
            assert len(set(first.split()[:-1])) == 1 and first.endswith("-")
            assert second == "0000000000000000 1"
            uids.append(int(first.split()[0]))
    assert min(uids) >= 10_000 and uids[0] != uids[1]


@pytest.mark.parametrize(
    "attempt",
    [
        "import socket; socket.create_connection(('1.1.1.1', 53), timeout=3)",
        "import socket; socket.create_connection(('172.17.0.1', 22), timeout=3)",
        "import socket; socket.socket(socket.AF_UNIX).connect('/run/codedance/host.sock')",
        "import urllib.request; urllib.request.urlopen('http://169.254.169.254/', timeout=3)",
        "open('/etc/passwd', 'a')",
        "open('/opt/codedance/program/codedance_interpreter/cell.py', 'a')",
        "open('/run/codedance/x', 'w')",
        "open('/proc/1/environ').read()",
        "open('/proc/1/mem', 'rb').read(1)",
        "open(f'/proc/{__import__(\"os\").getppid()}/mem', 'rb').read(1)",
        "import os; os.listdir('/scratch')",
        "open('/dev/mark', 'w')",
        "import os; os.setuid(0)",
        "import os; os.kill(1, 9)",
        "import os; os.chroot('.')",
        "import os; os.mknod('disk', 0o60600, os.makedev(8, 0))",
        "import ctypes\nassert ctypes.CDLL(None).mount(b'none', b'/tmp', b'tmpfs', 0, None) == 0",
        "import ctypes\nassert ctypes.CDLL(None).unshare(0x10000000) == 0",
        "import resource; resource.setrlimit(resource.RLIMIT_NPROC, (999, 999))",
        "open('large', 'wb').write(bytes(100 << 20))",
    ],
)
async def test_what_is_forbidden_fails(session: SandboxSession, attempt: str) -> None:
    execution = await session.run(attempt)
    assert execution.status is ExecutionStatus.ERROR, execution
    assert (await session.run("1")).status is ExecutionStatus.OK


async def test_only_the_loopback_interface_exists(session: SandboxSession) -> None:
    assert (await session.run("import os; os.listdir('/sys/class/net')")).stdout == "['lo']\n"


async def test_a_session_cannot_reach_another_one_in_its_container(node: SandboxNode) -> None:
    pool = SandboxPool([node])
    async with pool.session() as first, pool.session() as second, pool.session() as third:
        sessions = [first, second, third]
        by_load = [node._sessions[item.session_id].where for item in sessions]
        pairs = [
            (one, two)
            for one in range(3)
            for two in range(3)
            if one != two and by_load[one] and by_load[two] and by_load[one][0] is by_load[two][0]  # type: ignore[index]
        ]
        assert pairs, "two of three sessions share one of two containers"
        attacker, victim = pairs[0]
        told = await sessions[victim].run(
            "import os\nopen('private.txt', 'w').write('secret'); open('/scratch/shared.txt', 'w').write('secret')\n"
            "print(os.getpid(), os.getcwd())"
        )
        pid, folder = told.stdout.split()
        for attempt in (
            f"import os; os.kill({pid}, 9)",
            f"import os; os.listdir('{folder}')",
            f"open('{folder}/private.txt').read()",
            "open('/scratch/shared.txt').read()",
            f"open('/proc/{pid}/environ').read()",
            f"import os; os.listdir('/proc/{pid}/fd')",
        ):
            denied = await sessions[attacker].run(attempt)
            assert denied.error is not None and denied.error.kind == "PermissionError", attempt
        assert (await sessions[victim].run("open('private.txt').read()")).stdout == "'secret'\n"


@pytest.mark.parametrize(
    "bomb",
    [
        "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
        "import os\nfor _ in range(10):\n    if os.fork() == 0:\n        x = [bytearray(b'x' * (200 << 20))]\n"
        "        while True: pass\nwhile True: pass",
        "import os\nfor n in range(10_000): open(f'/tmp/{os.getpid()}-{n}', 'wb').write(bytes(1 << 20))",
        "import subprocess\nwhile True: subprocess.Popen(['sleep', '100'], start_new_session=True)",
    ],
)
async def test_a_bomb_harms_nobody_else(node: SandboxNode, bomb: str) -> None:
    pool = SandboxPool([node])
    async with pool.session() as bystander, pool.session() as other, pool.session() as bomber:
        for witness in (bystander, other):
            await witness.run("x = 1")
        execution = await bomber.run(bomb, timeout_s=2.0)
        assert execution.status in (ExecutionStatus.ERROR, ExecutionStatus.TIMEOUT, ExecutionStatus.KILLED)
        for witness in (bystander, other):
            assert (await witness.run("x")).stdout == "1\n"
        assert (await bomber.run("2")).status in (ExecutionStatus.OK, ExecutionStatus.KILLED)


async def test_files_and_processes_go_with_their_session(node: SandboxNode, docker_engine: DockerClient) -> None:
    pool = SandboxPool([node])
    async with pool.session() as session:
        told = await session.run(
            "import os\nopen('/scratch/left.bin', 'wb').write(bytes(1 << 20)); open('/dev/shm/left', 'w').write('x')\n"
            "print(os.getuid())"
        )
    uid = told.stdout.strip()
    names = list(node.stats()["interpreters"])

    def leftovers() -> str:
        listing = [docker_engine.containers.get(name).exec_run(["ls", "-lnR", "/scratch"]) for name in names]
        running = [docker_engine.containers.get(name).top(ps_args="-eo pid,uid")["Processes"] for name in names]
        return " ".join([item.output.decode() for item in listing] + [str(item) for item in running])

    deadline = time.monotonic() + 20
    while uid in await asyncio.to_thread(leftovers):  # not in this loop, which the clean-up needs as well
        assert time.monotonic() < deadline, "something is left"
        await asyncio.sleep(0.1)


async def test_a_dead_container_costs_its_own_sessions_only(node: SandboxNode, docker_engine: DockerClient) -> None:
    pool = SandboxPool([node])
    async with pool.session() as one, pool.session() as two:
        await one.run("x = 1")
        await two.run("x = 1")
        where = [node._sessions[item.session_id].where for item in (one, two)]
        assert where[0] is not None and where[1] is not None and where[0][0] is not where[1][0]
        running = asyncio.create_task(one.run("import time; time.sleep(20)"))
        await asyncio.sleep(0.3)
        started = time.monotonic()
        docker_engine.containers.get(where[0][0].name).kill()
        assert (await running).status is ExecutionStatus.KILLED
        assert time.monotonic() - started < 3
        assert (await two.run("x")).stdout == "1\n"
        assert (await one.run("'x' in globals()")).stdout == "False\n"
    await until(lambda: len(node.stats()["interpreters"]) == 2, 60)
    assert where[0][0].name not in node.stats()["interpreters"]


async def test_a_session_lost_between_calls_is_told_before_it_goes_on(
    node: SandboxNode, docker_engine: DockerClient
) -> None:
    async with SandboxPool([node]).session() as session:
        await session.run("x = 1")
        where = node._sessions[session.session_id].where
        assert where is not None
        docker_engine.containers.get(where[0].name).kill()
        await until(where[0].dead.is_set, 5)
        told = await session.run("y = x + 1")
        assert told.status is ExecutionStatus.KILLED and told.error is not None and "gone" in told.error.message
        assert (await session.run("5")).stdout == "5\n"
    await until(lambda: len(node.stats()["interpreters"]) == 2, 60)


async def test_the_loss_of_a_zygote_costs_no_session(node: SandboxNode, docker_engine: DockerClient) -> None:
    pool = SandboxPool([node])
    async with pool.session() as session:
        await session.run("x = 1")
        where = node._sessions[session.session_id].where
        assert where is not None
        os.kill(await pid_of_zygote(docker_engine, where[0].name), signal.SIGKILL)
        await until(lambda: not where[0].ready.is_set(), 5)
        assert (await session.run("x")).stdout == "1\n"
        async with pool.session() as fresh:
            assert (await fresh.run("2")).stdout == "2\n"
        await until(where[0].ready.is_set, 60)
        assert not where[0].dead.is_set()


async def test_forgotten_sessions_end_with_their_lease(node: SandboxNode, monkeypatch: pytest.MonkeyPatch) -> None:
    forgotten = await node.open()
    node._sessions[forgotten].used_at -= CONFIG.lease_ttl_s + 1
    monkeypatch.setattr(node, "config", CONFIG.replace(lease_ttl_s=1.0))
    node._spawn(node._end_stale_leases())
    await until(lambda: node.stats()["sessions"] == 0, 5)
    monkeypatch.undo()
    with pytest.raises(UnknownSession):
        await node.run(forgotten, "1")


async def test_containers_are_hardened(node: SandboxNode, docker_engine: DockerClient) -> None:
    for name in node.stats()["interpreters"]:
        details = docker_engine.containers.get(name).attrs
        host = details["HostConfig"]
        assert host["NetworkMode"] == "none" and host["ReadonlyRootfs"] and not host["Privileged"]
        assert host["CapDrop"] == ["ALL"] and sorted(cap.removeprefix("CAP_") for cap in host["CapAdd"]) == [
            "SETGID",
            "SETUID",
        ]
        assert "no-new-privileges:true" in host["SecurityOpt"]
        assert host["Memory"] == host["MemorySwap"] == 640 << 20 and host["PidsLimit"] == CONFIG.pids
        assert host["CpuShares"] == CONFIG.cpu_weight // CONFIG.containers
        assert host["CgroupParent"] == (cgroup_parent(docker_engine.info()) or "")
        # Nothing but the folder of their own socket: that for clients lies elsewhere.
        assert node._fleet is not None
        assert [(mount["Source"], mount["RW"]) for mount in details["Mounts"]] == [(str(node._fleet._directory), False)]
        assert not any("TOKEN" in item or "HOME=/root" in item for item in details["Config"]["Env"])


def grainy(width: int, height: int) -> bytes:
    """A JPEG whose PNG has nearly 3 bytes a pixel: noise of its own in each channel."""
    buffer = io.BytesIO()
    noise = Image.merge("RGB", [Image.effect_noise((width, height), 90) for _ in range(3)])
    noise.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


async def run_once_there_is_room(session: SandboxSession, code: str) -> str:
    """Asks again for what a full container refuses, as rollouts do."""
    deadline = time.monotonic() + GONE_SECONDS
    while True:
        try:
            return (await session.run(code)).stdout
        except SandboxFull:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.2)


async def test_sessions_share_the_file_space_that_was_computed_for_their_images(sandbox_image: str) -> None:
    """Every one of them reads its file; sessions that did not fit were told that their image was at fault."""
    data = grainy(2250, 1500)
    load = ImageLoad(2250 * 1500, 2250 * 1500, len(data), (2250, 1500))
    small = SandboxConfig(
        backend="docker", containers=1, standby_containers=0, sessions_per_container=30, queue_timeout_s=300.0
    )
    node = SandboxNode(sized(small, load))
    await node.start()
    try:
        async with contextlib.AsyncExitStack() as held:
            for _ in range(30):
                session = await held.enter_async_context(SandboxPool([node]).session(data))
                ran = await session.run("import os, cv2\nos.listdir('.')\ncv2.imread('input_image.png').shape", 120)
                assert ran.stdout.endswith("(1500, 2250, 3)\n"), ran
    finally:
        await node.shutdown()


async def test_file_space_that_is_used_up_is_no_fault_of_the_image_and_serves_again_once_a_session_ends(
    sandbox_image: str,
) -> None:
    data = grainy(1600, 1200)
    reads = "import cv2\ncv2.imread('input_image.png').shape"
    node = SandboxNode(CONFIG.replace(containers=1, standby_containers=0, scratch_mb=16, memory_mb=1024))
    await node.start()
    try:
        pool = SandboxPool([node])
        async with contextlib.AsyncExitStack() as held:
            sessions = [await held.enter_async_context(pool.session(data)) for _ in range(3)]
            for session in sessions[:2]:
                assert (await session.run(reads)).stdout == "(1200, 1600, 3)\n"
            with pytest.raises(SandboxFull, match=r"sandbox\.scratch_mb=16: raise it"):
                await sessions[2].run(reads)
            assert (await sessions[2].run("input_image.size")).stdout == "(1600, 1200)\n", "what reads no file runs on"
        async with pool.session(data) as session:
            assert await run_once_there_is_room(session, reads) == "(1200, 1600, 3)\n"
    finally:
        await node.shutdown()


async def test_a_session_that_finds_no_file_space_goes_to_a_container_that_has_some(sandbox_image: str) -> None:
    fills = "with open('mine', 'wb', buffering=0) as file:\n    while file.write(bytes(1 << 20)): pass"
    data = grainy(1600, 1200)
    node = SandboxNode(CONFIG.replace(standby_containers=0, scratch_mb=16, memory_mb=1024))
    await node.start()
    try:
        await until(lambda: len(node.stats()["interpreters"]) == 2, 60)
        pool = SandboxPool([node])
        async with pool.session() as greedy, pool.session() as other, pool.session(data) as session:
            await greedy.run(fills)
            await other.run("1")
            # it may begin beside the greedy one, and be refused there
            reads = "import cv2\ncv2.imread('input_image.png').shape"
            assert await run_once_there_is_room(session, reads) == "(1200, 1600, 3)\n"
    finally:
        await node.shutdown()


OWNER = """
import asyncio, sys
from codedance_verl.sandbox.config import SandboxConfig
from codedance_verl.sandbox.node import SandboxNode

async def main():
    node = SandboxNode(SandboxConfig(backend="docker", containers=1))
    await node.start()
    running = [asyncio.create_task(node.run(await node.open(), "while True: pass")) for _ in range(3)]
    await asyncio.sleep(1)
    print("running", flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


async def test_kill_9_of_the_owner_leaves_no_container(sandbox_image: str, docker_engine: DockerClient) -> None:
    owner = subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    try:
        assert await asyncio.wait_for(asyncio.to_thread(owner.stdout.readline), 120) == "running\n"
        assert containers_of(docker_engine, owner.pid)
    finally:
        owner.kill()
        owner.wait()
    await until(lambda: not containers_of(docker_engine, owner.pid), GONE_SECONDS)


async def test_the_reaper_removes_what_dead_owners_left_and_nothing_else(
    sandbox_image: str, docker_engine: DockerClient
) -> None:
    here = reaper.Owner.current()
    dead = replace(here, started=here.started + 1)
    made = [docker_engine.containers.create(sandbox_image, labels=reaper.labels(owner)) for owner in (here, dead)]
    try:
        removed = reaper.remove_orphans(docker_engine)
        assert made[1].name in removed and made[0].name not in removed
        assert made[0].name in {item.name for item in reaper.list_containers(docker_engine)}
    finally:
        for container in made:
            reaper.remove_container(docker_engine, container.name)


async def test_the_command_line_runs_cells_of_one_session(sandbox_image: str, tmp_path: Path) -> None:
    for name, code in {"a.py": "x = 2", "b.py": "print(x)\ninput_image", "c.py": "1/0"}.items():
        (tmp_path / name).write_text(code)
    from PIL import Image

    Image.new("RGB", (12, 8)).save(tmp_path / "in.png")
    script = "from codedance_verl.sandbox.cli import sandbox_app; sandbox_app()"
    command = [sys.executable, "-c", script, "run", "a.py", "b.py", "c.py", "--image", "in.png", "--json"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = await asyncio.to_thread(
        subprocess.run, command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    first, second, third = (json.loads(line) for line in done.stdout.splitlines())
    assert done.returncode == 1
    assert [item["status"] for item in (first, second, third)] == ["no_output", "ok", "error"]
    assert second["stdout"] == "2\n" and third["error"]["kind"] == "ZeroDivisionError"
    (image,) = second["images"]
    assert (image["width"], image["height"]) == (12, 8) and (tmp_path / image["path"]).is_file()
