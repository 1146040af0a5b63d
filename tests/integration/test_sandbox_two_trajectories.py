"""Nothing a trajectory does is seen by another one in its container: not beside it, not after it, not in its place."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from PIL import Image

from codedance_verl.sandbox.config import SandboxConfig
from codedance_verl.sandbox.node import SandboxNode
from codedance_verl.sandbox.pool import SandboxPool, SandboxSession
from codedance_verl.types import Execution
from tests.integration.traces import IN_LIBRARIES, IN_THE_PROCESS, ON_DISK, Trace

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow, pytest.mark.docker]

PLACES = 3
ANSWER_SECONDS = 30.0
TRACES = {**IN_THE_PROCESS, **IN_LIBRARIES, **ON_DISK}


def picture(colour: str = "red") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), colour).save(buffer, "PNG")
    return buffer.getvalue()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node(sandbox_image: str) -> AsyncIterator[SandboxNode]:
    """One container with so few places that they are used again and again."""
    node = SandboxNode(SandboxConfig(backend="docker", containers=1, sessions_per_container=PLACES))
    await node.start()
    yield node
    await node.shutdown()


@pytest_asyncio.fixture(loop_scope="module")
async def neighbour(node: SandboxNode) -> AsyncIterator[SandboxSession]:
    async with SandboxPool([node]).session(picture()) as session:
        yield session


async def run(session: SandboxSession, code: str) -> Execution:
    return await asyncio.wait_for(session.run(code), ANSWER_SECONDS)


async def seen(session: SandboxSession, trace: Trace) -> str:
    """Returns what `trace.look` shows; the kind of its exception when it fails."""
    execution = await run(session, trace.look)
    return execution.stdout if execution.error is None else f"{execution.error.kind}: {execution.error.message}"


@pytest.mark.parametrize("name", TRACES)
async def test_a_change_of_one_trajectory_is_seen_by_no_other(
    node: SandboxNode, neighbour: SandboxSession, name: str
) -> None:
    pool, trace = SandboxPool([node]), TRACES[name]
    clean = await seen(neighbour, trace)
    others = {}
    async with pool.session(picture()) as changer:
        left = await run(changer, trace.leave)
        assert left.succeeded, left
        changed = await seen(changer, trace)
        assert changed != clean, "the change cannot be seen at all"
        others["the one beside it"] = await seen(neighbour, trace)
        async with pool.session(picture()) as later:
            others["one opened after it"] = await seen(later, trace)
    for number in range(PLACES - 1):
        async with pool.session(picture()) as follower:
            others[f"follower {number} in its place"] = await seen(follower, trace)
    for who, value in others.items():
        assert value != changed if trace.varies else value == clean, f"{who} sees {value!r}"


async def test_pictures_and_text_come_back_to_who_showed_them(node: SandboxNode) -> None:
    colours = ["red", "lime", "blue"]

    async def draw(colour: str) -> None:
        async with SandboxPool([node]).session(picture(colour)) as session:
            for number in range(8):
                execution = await run(
                    session,
                    f"import matplotlib.pyplot as plt\nprint('{colour} {number}', plt.get_fignums())\n"
                    f"plt.figure(figsize=(1, 1), dpi=32, facecolor='{colour}'); plt.axis('off')\n"
                    "input_image",
                )
                assert execution.stdout == f"{colour} {number} []\n"
                shown = [Image.open(io.BytesIO(image.png)).getpixel((1, 1)) for image in execution.images]
                assert shown == [Image.new("RGB", (1, 1), colour).getpixel((0, 0))] * 2

    await asyncio.gather(*map(draw, colours))


LISTEN = """
import signal, time
heard = []
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP, signal.SIGCHLD):
    signal.signal(number, lambda number, _: heard.append(number))
signal.signal(signal.SIGALRM, lambda *_: heard.append('alarm'))
open('ready', 'w').close()
time.sleep(2)
heard
"""

SHOUT = """
import os, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for number in (0, signal.SIGCONT, signal.SIGUSR1, signal.SIGTERM):
    for whom in [-1, 0, *range(2, 400)]:
        try:
            if whom not in (os.getpid(), os.getppid()):
                signal.signal(number, signal.SIG_IGN) if number else None
                os.kill(whom, number)
        except OSError:
            pass
"""


async def test_signals_of_one_trajectory_do_not_reach_another(node: SandboxNode, neighbour: SandboxSession) -> None:
    listening = asyncio.create_task(run(neighbour, LISTEN))
    await asyncio.sleep(0.5)
    async with SandboxPool([node]).session() as session:
        await run(session, SHOUT)
    assert (await listening).stdout == "[]\n"


BUSY = """
import multiprocessing, os, subprocess, threading, time
os.environ['MARK'] = '1'
subprocess.Popen(['sleep', '7531'])
threading.Thread(target=time.sleep, args=(2,), name='mark').start()
import matplotlib.pyplot as plt
plt.figure(); plt.plot([1])
secret = 'swordfish'
time.sleep(2)
"""

LOOK_AROUND = """
import matplotlib.pyplot as plt
import os, threading
print(os.environ.get('MARK'), plt.get_fignums(), threading.active_count())
readable = set()
for pid in filter(str.isdigit, os.listdir('/proc')):
    if int(open(f'/proc/{pid}/status').read().split('Uid:')[1].split()[0]) != os.getuid():
        for name in ('environ', 'mem', 'maps', 'fd', 'cwd', 'root', 'exe', 'io', 'stack', 'auxv', 'task/%s/fd' % pid):
            try:
                path = f'/proc/{pid}/{name}'
                found = os.listdir(path) if os.path.isdir(path) else open(path, 'rb').read(1)
                readable.add(name)
            except OSError:
                pass
print(sorted(readable))
"""


async def test_a_cell_at_work_is_not_seen_by_a_cell_beside_it(node: SandboxNode, neighbour: SandboxSession) -> None:
    async with SandboxPool([node]).session() as session:
        at_work = asyncio.create_task(run(session, BUSY))
        await asyncio.sleep(0.5)
        assert (await run(neighbour, LOOK_AROUND)).stdout == "None [] 1\n[]\n"
        assert (await at_work).succeeded


CHANNELS = {
    "loopback": (
        "import socket\ns = socket.create_server(('127.0.0.1', 7531))\ns.settimeout(2)\ns.accept()",
        "import socket\nsocket.create_connection(('127.0.0.1', 7531), timeout=2)",
    ),
    "abstract socket": (
        "import socket\ns = socket.socket(socket.AF_UNIX)\ns.bind('\\0mark')\ns.listen()\ns.settimeout(2)\ns.accept()",
        "import socket\nsocket.socket(socket.AF_UNIX).connect('\\0mark')",
    ),
}


@pytest.mark.parametrize("name", CHANNELS)
async def test_two_cells_at_work_cannot_talk(node: SandboxNode, neighbour: SandboxSession, name: str) -> None:
    serve, connect = CHANNELS[name]
    async with SandboxPool([node]).session() as session:
        serving = asyncio.create_task(run(session, serve))
        await asyncio.sleep(0.5)
        assert (await run(neighbour, connect)).error is not None
        assert (await serving).error is not None
