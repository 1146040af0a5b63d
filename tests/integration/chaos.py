"""Breaks the parts of a sandbox that is at work and reports what that cost, as one line of JSON.

    python -m tests.integration.chaos --sessions 300 --faults container,zygote,actor --rounds 3

Trajectories run in a pool of a Ray job of its own and know what each cell must show. Meanwhile a striker kills a
container, a zygote or the node actor, or restarts the container engine, waits until the pool has its capacity back, and
goes on. Only what this job has started is struck. The engine is restarted only if it is a bare `dockerd` which the
project itself has started and which runs no container of anybody else.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import docker
import psutil
import ray
from docker.errors import DockerException

from codedance_verl.sandbox.config import SandboxConfig
from codedance_verl.sandbox.docker import engine, reaper
from codedance_verl.sandbox.errors import SandboxError
from codedance_verl.sandbox.pool import RayPool, get_or_start_pool
from codedance_verl.sandbox.ray_node import NAMESPACE
from codedance_verl.types import Execution, ExecutionStatus

FAULTS = ("container", "zygote", "actor", "engine")
CELL_SECONDS = 3.0
HUNG_SECONDS = 60.0
SETTLE_SECONDS = 60.0
AT_ONCE = 16
PLACES = 64  # of one container: enough for everybody, so that a probe does not wait for a place
WHERE = "import re\nre.search('containers/([0-9a-f]{64})', open('/proc/self/mountinfo').read())[1]"


@dataclass
class Session:
    """One trajectory as the client saw it. `ended_by` names the failure of its last call, and is empty without one."""

    number: int
    opened: float
    container: str = ""
    closed: float | None = None
    ended_by: str = ""
    detail: str = ""


@dataclass
class Strike:
    """A fault and what it took to recover: seconds until a new session answers, and until all places are back.

    It strikes somewhere between `at` and `until`.
    """

    fault: str
    at: float
    until: float = 0.0
    container: str = ""
    service_s: float | None = None
    capacity_s: float | None = None
    told: dict[str, int] = field(default_factory=dict)

    def hits(self, session: Session) -> bool:
        """True where the session was in what was struck; one whose container is not recorded yet may have been."""
        if self.fault == "zygote" or session.opened > self.until or (session.closed or self.at) < self.at:
            return False
        return self.fault != "container" or session.container in ("", self.container)


@dataclass
class Record:
    """Record of the whole run. `overrun_s`: longest time a call took beyond its own limit and its queueing."""

    sessions: list[Session] = field(default_factory=list)
    strikes: list[Strike] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    overrun_s: float = 0.0

    def report(self) -> dict[str, Any]:
        """The figures, and `wrong`: everything that must not happen under any fault."""
        struck = 0
        for session in self.sessions:
            by = [strike for strike in self.strikes if strike.hits(session)]
            struck += bool(by)
            if session.ended_by and not by:
                self.wrong.append(
                    f"session {session.number} was not struck and ended by {session.ended_by}: {session.detail}"
                )
            if session.ended_by and by:
                by[-1].told[session.ended_by] = by[-1].told.get(session.ended_by, 0) + 1
        return {
            "sessions": len(self.sessions),
            "struck": struck,
            "statuses": dict(self.statuses),
            "overrun_s": round(self.overrun_s, 3),
            "strikes": [asdict(strike) for strike in self.strikes],
            "wrong": self.wrong,
        }


class Client:
    """Runs trajectories until it is told that enough is enough."""

    def __init__(self, pool: RayPool, record: Record, seed: int) -> None:
        self._pool = pool
        self._record = record
        self._random = random.Random(seed)
        self.enough = False

    async def work(self) -> None:
        """One trajectory after the other."""
        while not self.enough:
            await self._trajectory()

    async def _trajectory(self) -> None:
        session = Session(len(self._record.sessions), time.monotonic())
        self._record.sessions.append(session)
        try:
            async with self._pool.session() as opened:
                session.container = (await self._call(opened.run, WHERE)).stdout.strip("'\n")
                await self._cells(opened.run, session)
        except _Ended as ended:
            session.ended_by, session.detail = ended.args
        except SandboxError as error:
            session.ended_by, session.detail = f"open: {type(error).__name__}", str(error)
        finally:
            session.closed = time.monotonic()

    async def _cells(self, run: Callable[..., Awaitable[Execution]], session: Session) -> None:
        await self._call(run, f"x = {session.number}")
        for step in range(self._random.randrange(2, 10)):
            pause = self._random.choice((0, 0, 0.05, 0.3))
            shown = await self._call(run, f"import time; time.sleep({pause})\nx += 1\nx")
            if shown.stdout != f"{session.number + step + 1}\n":
                self._record.wrong.append(f"session {session.number} shows {shown.stdout!r} in step {step}")
        if self._random.random() < 0.2:
            stopped = await self._call(run, "while True: pass", 0.5, ExecutionStatus.TIMEOUT)
            if (
                stopped.error is not None and "gone" not in stopped.error.message
            ):  # a supervisor too busy to answer in time
                await self._call(run, "x")

    async def _call(
        self, run: Callable[..., Awaitable[Execution]], code: str, limit_s: float = CELL_SECONDS, *expected: str
    ) -> Execution:
        """Runs a cell and checks that it comes back in time; raises `_Ended` when it does not end as it must."""
        started = time.monotonic()
        queue_s = 0.0
        try:
            execution = await asyncio.wait_for(run(code, limit_s), HUNG_SECONDS)
            queue_s = execution.queue_s
        except TimeoutError:
            self._record.wrong.append(f"a call hangs: {code!r}")
            raise _Ended("hung", code) from None
        except SandboxError as error:
            raise _Ended(type(error).__name__, str(error)) from None
        finally:
            self._record.overrun_s = max(self._record.overrun_s, time.monotonic() - started - queue_s - limit_s)
        self._record.statuses[execution.status] += 1
        if execution.status not in (expected or (ExecutionStatus.OK, ExecutionStatus.NO_OUTPUT)):
            raise _Ended(str(execution.status), f"{execution} for {code!r}")
        return execution


class _Ended(Exception):
    """A trajectory cannot go on. Arguments: what its last call was answered with, and the particulars."""


class Striker:
    """Commits faults one at a time and measures the recovery from each."""

    def __init__(self, pool: RayPool, config: SandboxConfig, record: Record, seed: int) -> None:
        self._pool = pool
        self._config = config
        self._record = record
        self._random = random.Random(seed)
        self.owners: set[int] = set()

    async def strike(self, fault: str) -> None:
        names = await self.interpreters()
        self.owners |= await asyncio.to_thread(own_owners)
        commit: dict[str, Callable[[Strike, str], Awaitable[None]]] = {
            "container": self._kill_container,
            "zygote": self._kill_zygote,
            "actor": self._kill_actor,
            "engine": self._restart_engine,
        }
        name = self._random.choice(names)
        lost = {"container": {name}, "zygote": set()}.get(fault, set(names))
        strike = Strike(fault, time.monotonic())
        await commit[fault](strike, name)
        strike.until = time.monotonic()
        self._record.strikes.append(strike)
        await asyncio.gather(self._until_served(strike), self._until_complete(strike, lost))
        self.owners |= await asyncio.to_thread(own_owners)

    async def interpreters(self) -> list[str]:
        """Names of the containers that can serve."""
        try:
            (stats,) = await asyncio.to_thread(self._pool.stats)
        except SandboxError:
            return []
        return list(stats["interpreters"])

    async def _kill_container(self, strike: Strike, name: str) -> None:
        def kill() -> None:
            with contextlib.closing(docker.from_env()) as client:
                container = client.containers.get(name)
                strike.container = str(container.id)
                strike.at = time.monotonic()
                container.kill()

        await asyncio.to_thread(kill)

    async def _kill_zygote(self, strike: Strike, name: str) -> None:
        def kill() -> None:
            with contextlib.closing(docker.from_env()) as client:
                processes = client.containers.get(name).top(ps_args="-eo pid,ppid,uid")["Processes"]
            roots = {int(pid): int(parent) for pid, parent, uid in processes if uid == "0"}
            init = next(pid for pid, parent in roots.items() if parent not in roots)
            strike.at = time.monotonic()
            os.kill(next(pid for pid, parent in roots.items() if parent == init), signal.SIGKILL)

        await asyncio.to_thread(kill)

    async def _kill_actor(self, strike: Strike, name: str) -> None:
        named = [found["name"] for found in ray.util.list_named_actors(True) if found["namespace"] == NAMESPACE]
        for actor in [ray.get_actor(each, NAMESPACE) for each in named]:
            if name in (await actor.stats.remote())["interpreters"]:
                strike.at = time.monotonic()
                ray.kill(actor)

    async def _restart_engine(self, strike: Strike, _name: str) -> None:
        def restart() -> None:
            pid = own_engine_pid()
            assert pid is not None and not foreign_containers(self.owners), "this engine is not ours to restart"
            strike.at = time.monotonic()
            os.kill(pid, signal.SIGTERM)
            while _runs(pid):
                time.sleep(0.05)
            engine.ensure_engine(may_start=True).close()

        await asyncio.to_thread(restart)

    async def _until_served(self, strike: Strike) -> None:
        while time.monotonic() < strike.at + SETTLE_SECONDS:
            with contextlib.suppress(SandboxError, TimeoutError):
                async with self._pool.session() as session:
                    if (await asyncio.wait_for(session.run("6 * 7"), HUNG_SECONDS)).stdout == "42\n":
                        strike.service_s = round(time.monotonic() - strike.at, 3)
                        return
            await asyncio.sleep(0.02)

    async def _until_complete(self, strike: Strike, lost: set[str]) -> None:
        """Waits until as many interpreters serve as before, without those that were lost."""
        await asyncio.sleep(0.1)  # a fault takes a moment to be noticed
        while time.monotonic() < strike.at + SETTLE_SECONDS:
            if len(set(await self.interpreters()) - lost) >= self._config.containers:
                strike.capacity_s = round(time.monotonic() - strike.at, 3)
                return
            await asyncio.sleep(0.05)


def own_engine_pid() -> int | None:
    """The pid of a `dockerd` that `engine.py` has started as a bare process, told by where its output goes."""
    if os.environ.get("DOCKER_HOST") or Path("/run/systemd/system").is_dir():
        return None
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            started_here = entry.name.isdigit() and (entry / "fd/1").readlink() == engine.LOG_PATH
            if started_here and (entry / "comm").read_text().strip() == "dockerd":
                return int(entry.name)
    return None


def foreign_containers(owners: set[int]) -> list[str]:
    """Names of running containers, of whatever kind, that do not belong to these processes."""
    with contextlib.closing(docker.from_env()) as client:
        found = client.containers.list(ignore_removed=True)
    whose = {str(item.name): reaper.owner_of(item) for item in found}
    return [name for name, owner in whose.items() if owner is None or owner.pid not in owners]


def containers_of(owners: set[int]) -> list[str]:
    """Names of the project's containers, running or not, that belong to these processes."""
    with contextlib.suppress(DockerException, OSError), contextlib.closing(docker.from_env()) as client:
        whose = {str(item.name): reaper.owner_of(item) for item in reaper.list_containers(client)}
        return [name for name, owner in whose.items() if owner is not None and owner.pid in owners]
    return []


def own_owners() -> set[int]:
    """The processes of this job that own containers."""
    below = {process.pid for process in psutil.Process().children(recursive=True)}
    with contextlib.closing(docker.from_env()) as client:
        owners = [reaper.owner_of(item) for item in reaper.list_containers(client)]
    return {owner.pid for owner in owners if owner is not None and owner.pid in below}


def _runs(pid: int) -> bool:
    try:
        return re.split(r"\) ", Path(f"/proc/{pid}/stat").read_text())[-1][0] not in "ZX"
    except OSError:
        return False


async def chaos(given: argparse.Namespace, pool: RayPool, config: SandboxConfig) -> dict[str, Any]:
    """Runs the trajectories and the faults, and reports."""
    record = Record()
    client, striker = Client(pool, record, given.seed), Striker(pool, config, record, given.seed)
    started = time.monotonic()
    at_work = [asyncio.create_task(client.work()) for _ in range(AT_ONCE)]
    try:
        for fault in given.faults.split(",") * given.rounds:
            await asyncio.sleep(given.pause)
            await striker.strike(fault)
            print(f"STRUCK {json.dumps(asdict(record.strikes[-1]))}", flush=True)
            print(f"OWNERS {json.dumps(sorted(striker.owners))}", flush=True)
        while len(record.sessions) < given.sessions:
            await asyncio.sleep(0.1)
    finally:
        client.enough = True
        await asyncio.gather(*at_work)
    return {"seconds": round(time.monotonic() - started, 1), "owners": sorted(striker.owners), **record.report()}


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--sessions", type=int, default=300, help="at least so many, and until all faults are through")
    parser.add_argument("--faults", default="container,zygote,actor", help=",".join(FAULTS))
    parser.add_argument("--rounds", type=int, default=3, help="how often the faults are gone through")
    parser.add_argument("--pause", type=float, default=1.0, help="seconds of quiet before each fault")
    parser.add_argument("--containers", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    config = SandboxConfig(
        backend="docker", containers=given.containers, sessions_per_container=PLACES, cell_timeout_s=CELL_SECONDS
    )
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    pool = get_or_start_pool(config)
    try:
        print("REPORT " + json.dumps(asyncio.run(chaos(given, pool, config))), flush=True)
    finally:
        pool.shutdown()
        ray.shutdown()


if __name__ == "__main__":
    main()
