"""Share of the cores that cells get beside busy processes, by `sandbox.cpu_weight`.

Run with `python -m benchmarks.sandbox_weight [--weights 64,1024,...] [--output FILE]`; needs Docker. Spinning processes
stand for a trainer that takes all cores; sessions run cells that compute. Each weight is measured in turn, round by
round, beside containers below the engine's own parent group, where the weight counts among containers alone.

With `--within GROUP` all of it happens in a control group of its own (version 1, as root), which weighs as one thread
and stands for the root: other work on the machine is hardly disturbed, and is not in the figures.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from benchmarks.sandbox_bench.report import machine_facts
from codedance_verl.sandbox.config import SandboxConfig
from codedance_verl.sandbox.docker import container, engine
from codedance_verl.sandbox.docker.container import DockerLauncher
from codedance_verl.sandbox.docker.reaper import Owner
from codedance_verl.sandbox.node import SandboxNode
from codedance_verl.sandbox.pool import SandboxPool, SandboxSession

WEIGHTS = (64, 1024, 4096, 16384)
ENGINES_OWN = "the engine's own parent group"
CELL = "sum(number * number for number in range(100_000)); None"
_CPU = Path("/sys/fs/cgroup/cpu")
_GROUP_WEIGHT = 1024
_CONTAINERS = 2
_SESSIONS = 4


class _Launcher(DockerLauncher):
    """Launcher of containers below a given parent group; `None` is the engine's own."""

    def __init__(self, config: SandboxConfig, parent: str | None) -> None:
        super().__init__(config, Owner.current())
        self._parent = parent

    def prepare(self) -> None:
        super().prepare()
        self._cgroup_parent = self._parent


@contextlib.contextmanager
def group(name: str) -> Iterator[None]:
    """Makes a control group that weighs as one thread, and removes it in the end; does nothing without a name."""
    if name:
        (_CPU / name).mkdir(exist_ok=True)
        (_CPU / name / "cpu.shares").write_text(str(_GROUP_WEIGHT))
    try:
        yield
    finally:
        if name:
            for folder in sorted(_CPU.parent.glob(f"*/{name}/**/"), reverse=True):
                with contextlib.suppress(OSError):
                    folder.rmdir()


@contextlib.contextmanager
def spinning(number: int, within: str) -> Iterator[Any]:
    """Runs processes that take all the time they get; gives an array of their CPU seconds."""
    context = multiprocessing.get_context("spawn")
    seconds, ends = context.Array("d", number), context.Event()
    processes = [context.Process(target=_spin, args=(seconds, index, ends, within)) for index in range(number)]
    for process in processes:
        process.start()
    try:
        yield seconds
    finally:
        ends.set()
        for process in processes:
            process.join()


def _spin(seconds: Any, index: int, ends: Event, within: str) -> None:
    if within:
        (_CPU / within / "cgroup.procs").write_text(str(os.getpid()))
    while not ends.is_set():
        for _ in range(100_000):
            pass
        seconds[index] = time.process_time()


async def measured(launcher: DockerLauncher, config: SandboxConfig, spinners: Any, seconds: float) -> dict[str, float]:
    """Returns calls a second, their median, and the share of cells in the CPU time of cells and spinning processes."""
    node = SandboxNode(config, launcher)
    await node.start()
    try:
        async with contextlib.AsyncExitStack() as stack:
            pool = SandboxPool([node])
            sessions = [await stack.enter_async_context(pool.session()) for _ in range(_SESSIONS)]
            await asyncio.gather(*(session.run(CELL, 300) for session in sessions))
            names = list(node.stats()["interpreters"])
            cells, others, began = _used_s(launcher, names), sum(spinners), time.perf_counter()
            waits = await asyncio.gather(*(_calls(session, began + seconds) for session in sessions))
            lasted = time.perf_counter() - began
            cells, others = _used_s(launcher, names) - cells, sum(spinners) - others
    finally:
        await node.shutdown()
    durations = [duration for each in waits for duration in each]
    return {
        "calls_per_s": round(len(durations) / lasted, 2),
        "p50_ms": round(1e3 * statistics.median(durations), 1),
        "cells_share": round(cells / (cells + others), 3),
    }


async def _calls(session: SandboxSession, until: float) -> list[float]:
    durations = []
    while time.perf_counter() < until:
        began = time.perf_counter()
        await session.run(CELL, 300)
        durations.append(time.perf_counter() - began)
    return durations


def _used_s(launcher: DockerLauncher, names: Sequence[str]) -> float:
    """Returns the CPU seconds of containers, by the engine's word: the same on both versions of control groups."""
    stats = [launcher.client.api.stats(name, stream=False, one_shot=True) for name in names]
    return float(sum(each["cpu_stats"]["cpu_usage"]["total_usage"] for each in stats)) / 1e9


def main() -> Mapping[str, Any]:
    """Prints the figures of each weight as JSON, the medians of all rounds, and returns them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", default=",".join(map(str, WEIGHTS)), help="values of sandbox.cpu_weight")
    parser.add_argument("--spinning", type=int, default=4 * (os.cpu_count() or 1), help="busy processes beside it")
    parser.add_argument("--seconds", type=float, default=6.0, help="duration of one measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--within", default="", metavar="GROUP", help="a control group to be made, in place of the root"
    )
    parser.add_argument("--output", type=Path, help="a file for the JSON")
    given = parser.parse_args()
    machine = machine_facts()
    rounds: dict[str, list[dict[str, float]]] = {}
    facts = engine.ensure_engine(may_start=False).info()
    own, top = (
        (f"/{given.within}/engine", f"/{given.within}") if given.within else (None, container.cgroup_parent(facts))
    )
    with group(given.within), spinning(given.spinning, given.within) as spinners:
        for _ in range(given.rounds):
            for weight in (None, *map(int, given.weights.split(","))):
                config = SandboxConfig(
                    containers=_CONTAINERS, standby_containers=0, cpu_weight=weight or 64, start_timeout_s=600
                )
                launcher = _Launcher(config, own if weight is None else top)
                found = asyncio.run(measured(launcher, config, spinners, given.seconds))
                rounds.setdefault(str(weight or ENGINES_OWN), []).append(found)
    figures = {
        weight: {key: statistics.median(each[key] for each in found) for key in found[0]}
        for weight, found in rounds.items()
    }
    parent = {key: facts.get(key) for key in ("CgroupDriver", "CgroupVersion")} | {"parent": top}
    document = {"machine": machine, "groups": parent, "spinning": given.spinning, "measured": figures}
    text = json.dumps(document, indent=1)
    if given.output is not None:
        given.output.parent.mkdir(parents=True, exist_ok=True)
        given.output.write_text(text + "\n")
    print(text)
    return document


if __name__ == "__main__":
    main()
