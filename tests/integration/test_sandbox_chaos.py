"""Containers, zygotes, the node actor and the engine are lost while trajectories run: what that may cost, at most."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.chaos import containers_of, foreign_containers, own_engine_pid

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(600)]

SESSIONS = 300
OVERRUN_SECONDS = 2.0
SERVICE_SECONDS = {"container": 2.0, "zygote": 2.0, "actor": 2.0, "engine": 15.0}
GONE_SECONDS = 30.0
RUN_SECONDS = 300.0
REPOSITORY = Path(__file__).parents[2]


class Driver:
    """A chaos run in a process of its own, and what it has told so far."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.chaos", *arguments],
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.lines: list[str] = []
        self._queue: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._pump, daemon=True).start()

    def _pump(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._queue.put(line)
        self._queue.put("")

    def told(self, mark: str, within_s: float) -> Any:
        """The first line from now on that begins with `mark`, decoded; fails when none comes in time."""
        deadline = time.monotonic() + within_s
        while True:
            with contextlib.suppress(queue.Empty):
                line = self._queue.get(timeout=max(0.0, deadline - time.monotonic()))
                self.lines.append(line)
                if line.startswith(mark + " "):
                    return json.loads(line.removeprefix(mark))
                if line:
                    continue
            raise AssertionError(f"the driver has not told {mark}:\n{''.join(self.lines)[-3000:]}")


@contextlib.contextmanager
def driver(*arguments: str) -> Iterator[Driver]:
    running = Driver(*arguments)
    try:
        yield running
    finally:
        running.process.kill()
        running.process.wait()


def assert_in_order(report: dict[str, Any]) -> None:
    """Asserts what holds under every fault. Prints the figures first."""
    for strike in report["strikes"]:
        print({name: strike[name] for name in ("fault", "service_s", "capacity_s", "told")})
    print({name: report[name] for name in ("seconds", "sessions", "struck", "statuses", "overrun_s")})
    assert not report["wrong"], "\n".join(report["wrong"][:20])
    assert report["overrun_s"] <= OVERRUN_SECONDS
    for strike in report["strikes"]:
        assert strike["service_s"] is not None and strike["service_s"] <= SERVICE_SECONDS[strike["fault"]], strike
        assert strike["capacity_s"] is not None, strike
        assert set(strike["told"]) <= {"killed"}, strike


def test_faults_cost_the_sessions_they_strike_and_nobody_else(sandbox_image: str) -> None:
    with driver("--sessions", str(SESSIONS), "--faults", "container,zygote,actor", "--rounds", "3") as running:
        report = running.told("REPORT", RUN_SECONDS)
    assert_in_order(report)
    assert report["sessions"] >= SESSIONS and len(report["strikes"]) == 9
    assert report["struck"] > 0


def test_the_only_container_is_replaced_from_warm_stock(sandbox_image: str) -> None:
    arguments = ("--sessions", "1", "--faults", "container", "--rounds", "4", "--containers", "1", "--pause", "5")
    with driver(*arguments) as running:
        assert_in_order(running.told("REPORT", RUN_SECONDS))


def test_kill_9_of_the_driver_amid_chaos_leaves_no_container(sandbox_image: str) -> None:
    with driver("--sessions", "1000000", "--faults", "container,actor,zygote", "--rounds", "1000") as running:
        owners: set[int] = set()
        while len(owners) < 2:  # the first actor, and the one that took its place
            owners |= set(running.told("OWNERS", RUN_SECONDS))
        assert containers_of(owners)
        running.process.kill()
        killed = time.monotonic()
    while left := containers_of(owners):
        assert time.monotonic() < killed + GONE_SECONDS, f"{left} outlive the driver"
        time.sleep(0.2)
    print(f"gone {time.monotonic() - killed:.1f} s after the driver")


def test_the_engine_is_restarted_under_the_pool(sandbox_image: str) -> None:
    if own_engine_pid() is None:
        pytest.skip("the container engine was not started by this project as a bare process")
    if foreign := foreign_containers(set()):
        pytest.skip(f"the container engine runs what is not ours: {foreign}")
    with driver("--sessions", "1", "--faults", "engine", "--rounds", "2", "--pause", "3") as running:
        assert_in_order(running.told("REPORT", RUN_SECONDS))
