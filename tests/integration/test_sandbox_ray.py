"""The pool in a Ray job: found by workers, released by them, and gone with the driver."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from codedance_verl.sandbox.docker import reaper

if TYPE_CHECKING:
    from docker import DockerClient

pytestmark = [pytest.mark.docker, pytest.mark.slow]

START_SECONDS = 150
GONE_SECONDS = 20.0

DRIVER = """
import asyncio, json, sys, time
import ray
from codedance_verl.sandbox.errors import SandboxInputError
from codedance_verl.sandbox.pool import SandboxPool, get_or_start_pool

CONFIG = {"backend": "docker", "containers": 1, "cell_timeout_s": 20.0}

SHOW = "from PIL import Image; Image.new('L', (9, 9))"

class Worker:
    async def trajectory(self):
        pool = SandboxPool.connect(CONFIG)
        async with pool.session() as session:
            cells = [await session.run(code) for code in ("x = 40", "x + 2", "1/0", SHOW)]
        return [(cell.status.value, cell.stdout, len(cell.images)) for cell in cells]

    async def broken_image(self):
        try:
            async with SandboxPool.connect(CONFIG).session(b"junk"):
                return "opened"
        except SandboxInputError as error:
            return type(error).__name__

    async def cancelled(self):
        async def hang():
            async with SandboxPool.connect(CONFIG).session() as session:
                await session.run("while True: pass")
        task = asyncio.create_task(hang())
        await asyncio.sleep(1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
pool = get_or_start_pool(CONFIG)
worker = ray.remote(num_cpus=0)(Worker).remote()
results = {"trajectory": ray.get(worker.trajectory.remote(), timeout=60)}
results["broken"] = ray.get(worker.broken_image.remote(), timeout=60)
ray.get(worker.cancelled.remote(), timeout=60)
deadline = time.monotonic() + 10
while any(pool.stats()[0]["interpreters"].values()) and time.monotonic() < deadline:
    time.sleep(0.1)
results["stats"] = pool.stats()
print("RESULT " + json.dumps(results), flush=True)
time.sleep(600)
"""


def ours(engine: DockerClient, since: float) -> set[str]:
    """Names of the project's containers created since then by anyone but this process."""
    found = set()
    for container in reaper.list_containers(engine):
        owner = reaper.owner_of(container)
        if owner is not None and owner.pid != os.getpid() and int(container.labels[reaper.CREATED_LABEL]) >= int(since):
            found.add(container.name)
    return found


def test_workers_share_the_pool_and_it_ends_with_the_driver(sandbox_image: str, docker_engine: DockerClient) -> None:
    since = time.time()
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        results = _result_of(driver)
        names = set(results["stats"][0]["interpreters"])
        assert names <= ours(docker_engine, since)
    finally:
        driver.kill()
        driver.communicate()
    assert results["trajectory"] == [["no_output", "", 0], ["ok", "42\n", 0], ["error", "", 0], ["ok", "", 1]]
    assert results["broken"] == "SandboxInputError"
    assert results["stats"][0]["sessions"] == 0 and set(results["stats"][0]["interpreters"].values()) == {0}
    deadline = time.monotonic() + GONE_SECONDS
    while names & ours(docker_engine, since):
        assert time.monotonic() < deadline, "containers outlive the driver"
        time.sleep(0.2)


def _result_of(driver: subprocess.Popen[str]) -> dict[str, list]:  # type: ignore[type-arg]
    """Returns what the driver printed after the mark; its stderr when it ended before."""
    assert driver.stdout is not None
    deadline = time.monotonic() + START_SECONDS
    for line in driver.stdout:
        if line.startswith("RESULT "):
            return dict(json.loads(line.removeprefix("RESULT ")))
        assert time.monotonic() < deadline
    raise AssertionError(driver.communicate()[1][-3000:])


LOSS = """
import asyncio, json, tempfile, time
from pathlib import Path
import ray
from codedance_verl.sandbox.pool import SandboxPool, get_or_start_pool

CONFIG = {"backend": "docker", "containers": 1, "standby_containers": 1}

class Worker:
    async def lose_a_session(self, main_actor):
        async with SandboxPool.connect(CONFIG).session() as session:
            ray.kill(main_actor)
            # Ray does not wait for the end of the process, which answers on its socket until then.
            while (status := (await session.run("1")).status.value) == "ok":
                await asyncio.sleep(0.1)
            return status

def folders():
    # those of the dead: other tests may run on this machine
    found = Path(tempfile.gettempdir()).glob("codedance-*-*-*-*")
    return {path.name for path in found if not Path("/proc", path.name.split("-")[1]).exists()}

async def main():
    before = folders()
    pool = get_or_start_pool(CONFIG)
    main_actor = pool._actors[0].actors[0]
    async with pool.session() as struck, pool.session() as idle:
        await struck.run("x = 1")
        running = asyncio.create_task(struck.run("import time; time.sleep(60)"))
        await asyncio.sleep(0.5)
        ray.kill(main_actor)
        killed_at = time.monotonic()
        told = [(await running).status.value, (await idle.run("1")).status.value]
        async with pool.session() as fresh:
            served = (await fresh.run("6 * 7")).stdout
        back_s = time.monotonic() - killed_at
        again = (await struck.run("'x' in globals()")).stdout
    deadline = time.monotonic() + 60
    while not pool._actors[0].is_up and time.monotonic() < deadline:
        await asyncio.sleep(0.1)
    async with pool.session() as late:
        restored = (await late.run("1 + 1")).stdout
    stats = pool.stats()
    worker = ray.remote(num_cpus=0)(Worker).remote()
    first = pool._actors[0].actors[0]
    by_worker = await worker.lose_a_session.remote(first)
    successor = pool._actors[0].actors[0]
    await successor.ready.remote()
    names = set(pool.stats()[0]["interpreters"])
    await asyncio.to_thread(pool.shutdown)
    results = dict(told=told, served=served, again=again, restored=restored, opened=stats[0]["opened"], back_s=back_s)
    results |= dict(by_worker=by_worker, replaced=first != successor, names=sorted(names))
    results |= dict(left=sorted(folders() - before))
    print("RESULT " + json.dumps(results), flush=True)

ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
asyncio.run(main())
"""


def test_a_standby_serves_while_a_lost_node_actor_is_replaced(sandbox_image: str, docker_engine: DockerClient) -> None:
    since = time.time()
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    driver = subprocess.Popen(
        [sys.executable, "-c", LOSS], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        results: dict[str, object] = dict(_result_of(driver))
    finally:
        driver.kill()
        driver.communicate()
    assert results["told"] == ["killed", "killed"]
    assert (results["served"], results["again"]) == ("42\n", "False\n")
    assert (results["restored"], results["opened"]) == ("2\n", 1), "the successor of the node actor got no session"
    print(f"back after {results['back_s']:.2f} s")
    assert results["by_worker"] == "killed" and results["replaced"]
    assert not set(results["names"]) & ours(docker_engine, since), "the successor that a worker started was left alone"  # type: ignore[call-overload]
    assert results["left"] == [], "killed actors left their folders"


SEVERAL = """
import asyncio, dataclasses, json, os, socket, time
import ray
from codedance_verl.sandbox.client_nodes import RemoteNode
from codedance_verl.sandbox.config import SandboxConfig
from codedance_verl.sandbox.pool import SandboxPool, get_or_start_pool
from codedance_verl.sandbox.ray_node import RayFinder, node_metrics

CONFIG = SandboxConfig(
    backend="docker", containers=2, standby_containers=0, cores_per_actor=max(os.cpu_count() // 2, 1)
)
CELLS = ("x = 40", "x + 2", "1/0", "x", "print('\\\\ud800')", "while True: pass", "exit(3)",
         "from PIL import Image; [display(Image.new('RGB', (90, 70), c)) for c in ('red', 'blue')]; None",
         "import numpy as np; np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype('uint8')")

def answers(path):
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
        return True
    except OSError:
        return False

def timeless(execution):
    return dataclasses.replace(execution, duration_s=0.0, queue_s=0.0)

async def cells(node, images):
    async with SandboxPool([node]).session(*images) as session:
        return [timeless(await session.run(cell, 2.0)) for cell in CELLS]

async def until_up(node):
    deadline = time.monotonic() + 90
    while not node.is_up and time.monotonic() < deadline:
        await asyncio.sleep(0.1)

class Elsewhere:
    def socket(self, image):
        async def run():
            async with SandboxPool.connect(CONFIG).session(image) as session:
                return (await session.run("input_image.size")).stdout
        return asyncio.run(run())

async def main():
    pool = get_or_start_pool(CONFIG)
    node = pool._actors[0]
    node_id = node.node_id
    results = dict(actors=len(node.main_actors), all=len(node.actors))
    import io
    from PIL import Image
    buffer = io.BytesIO(); Image.effect_noise((120, 80), 50).convert("RGB").save(buffer, "PNG")
    image = buffer.getvalue()

    # both ways
    ways = [RemoteNode(CONFIG, node_id, RayFinder(), results["actors"], local) for local in (True, False)]
    by_socket, by_ray = await asyncio.gather(*(cells(way, [image]) for way in ways))
    results["same"] = by_socket == by_ray
    results["statuses"] = [cell.status.value for cell in by_socket]
    results["shown"] = [len(cell.images) for cell in by_socket]
    results["hashed"] = all(len(image.sha256) == 64 for cell in by_socket for image in cell.images)

    # spread, and the death of each actor
    async with pool.session() as a, pool.session() as b, pool.session() as c, pool.session() as d:
        sessions = [a, b, c, d]
        for number, session in enumerate(sessions):
            await session.run(f"x = {number}")
        results["spread"] = sorted(handle.sessions for handle in node._mains)
        for victim in (1, 0):
            struck = [s for s in sessions if node._held[s.session_id].handle is node._mains[victim]]
            spared = [s for s in sessions if s not in struck]
            path = await node._mains[victim].socket()
            ray.kill(node.main_actors[victim])
            while answers(path):  # Ray does not wait for the end of the process
                await asyncio.sleep(0.1)
            cells_after = await asyncio.gather(*(s.run("x") for s in sessions))
            results[f"killed{victim}"] = sorted(
                cell.status.value for s, cell in zip(sessions, cells_after) if s in struck)
            results[f"spared{victim}"] = [
                cell.stdout == f"{sessions.index(s)}\\n" for s, cell in zip(sessions, cells_after) if s in spared]
            async with pool.session() as fresh:
                results[f"served{victim}"] = (await fresh.run("6 * 7")).stdout
            await until_up(node)
            for s in struck:
                await s.run(f"x = {sessions.index(s)}")
    stats = pool.stats()
    results["interpreters"] = [len(each["interpreters"]) for each in stats]
    results["names"] = sorted(name for each in stats for name in each["interpreters"])

    # metrics of every actor, and a socket that is gone
    collector = node_metrics(CONFIG)
    collector.ask()
    results["tallies"] = len(collector.take(10.0))
    sockets = [await handle.socket() for handle in node._mains]
    for path in sockets:
        path.unlink()
    worker = ray.remote(num_cpus=0)(Elsewhere).remote()
    results["fallback"] = await worker.socket.remote(image)
    await asyncio.to_thread(pool.shutdown)
    results["left"] = [str(path) for path in sockets if path.parent.exists()]
    print("RESULT " + json.dumps(results), flush=True)

ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
asyncio.run(main())
"""


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core has one node actor")
def test_several_node_actors_of_a_host_serve_fail_and_come_back_one_by_one(
    sandbox_image: str, docker_engine: DockerClient
) -> None:
    since = time.time()
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    driver = subprocess.Popen(
        [sys.executable, "-c", SEVERAL], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        results: dict[str, object] = dict(_result_of(driver))
    finally:
        driver.kill()
        driver.communicate()
    actors = results["actors"]
    assert isinstance(actors, int) and actors >= 2 and results["all"] == actors, "a standby is needed by one alone"
    assert results["same"], "the two ways give different executions"
    assert results["statuses"] == ["no_output", "ok", "error", "ok", "ok", "timeout", "error", "ok", "ok"]
    assert results["shown"] == [0, 0, 0, 0, 0, 0, 0, 2, 1] and results["hashed"]
    assert results["spread"] == sorted([4 // actors + (index < 4 % actors) for index in range(actors)])
    for victim in (1, 0):
        assert set(results[f"killed{victim}"]) == {"killed"}  # type: ignore[call-overload]
        assert all(results[f"spared{victim}"]) and results[f"spared{victim}"]  # type: ignore[call-overload]
        assert results[f"served{victim}"] == "42\n"
    assert results["interpreters"] == [1] * actors and results["tallies"] == actors
    assert results["fallback"] == "(120, 80)\n"
    assert results["left"] == []
    deadline = time.monotonic() + GONE_SECONDS
    while set(results["names"]) & ours(docker_engine, since):  # type: ignore[call-overload]
        assert time.monotonic() < deadline, "containers outlive the driver"
        time.sleep(0.2)
