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
            return (await session.run("1")).status.value

def folders():
    return {path.name for path in Path(tempfile.gettempdir()).glob("codedance-*-*-*-*")}

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
