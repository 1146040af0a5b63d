"""The open loop: sessions arrive at a rate of their own, whether or not the earlier ones are done.

A closed loop sends no call before the last is answered, so with more callers than cores its latency is the length of
its own queue. Here latency is counted from the moment at which a session was due, so what waits is counted too.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks.sandbox_bench import footprint
from benchmarks.sandbox_bench.contender import Contender, Serving
from benchmarks.sandbox_bench.results import Distribution
from benchmarks.sandbox_bench.workloads import CROP, sample_image

_FAILURE_CHARS = 500

Say = Callable[[str], None]


@dataclass(frozen=True)
class Arrivals:
    """Poisson arrivals of sessions. Each opens with `input_image`, shows one crop, and is closed.

    Attributes:
        rate: sessions a second on average.
        seconds: for which they arrive.
        deadline_s: from the moment a session is due until its crop is decoded; past it the session is late.
        grace_s: after the last arrival; sessions that are not done then are given up.
        seed: of the times between arrivals, the same for every contender.
        warm_up: sessions before, one after another, that do not count.
    """

    rate: float = 25.0
    seconds: float = 20.0
    deadline_s: float = 0.25
    grace_s: float = 20.0
    seed: int = 0
    warm_up: int = 4

    def times(self) -> Iterator[float]:
        """Yields the seconds at which sessions are due."""
        chance, due = random.Random(self.seed), 0.0
        while (due := due + chance.expovariate(self.rate)) < self.seconds:
            yield due


@dataclass(frozen=True)
class Open:
    """Result of an open loop.

    Attributes:
        sessions: that arrived.
        answered: of them, with the right crop, however late.
        late_share: not answered right within the deadline, 0 to 1.
        latency_ms: of those that were answered, from the moment they were due.
        cpu_ms: CPU time of an answered session, of the measuring process, its children and what serves; None where
            containers that have ended cannot be asked for theirs.
        failure: first of the errors and wrong answers.
    """

    sessions: int
    answered: int
    late_share: float
    latency_ms: Distribution | None
    cpu_ms: float | None
    failure: str = ""

    def __str__(self) -> str:
        latency = self.latency_ms
        times = f"p50 {latency.p50:.0f} ms, p99 {latency.p99:.0f} ms" if latency else "none answered"
        cpu = "" if self.cpu_ms is None else f", {self.cpu_ms:.1f} ms CPU each"
        failure = f"; {self.failure}" if self.failure else ""
        return f"{times}, {self.late_share:.1%} late, {self.answered} of {self.sessions} answered{cpu}{failure}"


async def measure_arrivals(contender: Contender, arrivals: Arrivals) -> Open:
    """Runs the open loop against a contender. Raises what starting the contender, or a warm-up session, raises."""
    due = list(arrivals.times())
    async with contender.serving(min(len(due), 256)) as serving:
        for _ in range(arrivals.warm_up):
            if fault := await _session(serving, thorough=True):
                raise RuntimeError(fault)
        return await _open_loop(serving, due, arrivals)


async def _open_loop(serving: Serving, due: list[float], arrivals: Arrivals) -> Open:
    latencies: list[float] = []
    faults: list[str] = []
    cpu = _Cpu(serving)
    began = time.perf_counter()

    async def one(at: float) -> None:
        await asyncio.sleep(max(began + at - time.perf_counter(), 0.0))
        try:
            fault = await _session(serving, answered=lambda: latencies.append(time.perf_counter() - began - at))
        except Exception as error:  # a session that fails is a result
            fault = f"{type(error).__name__}: {error}"
        if fault:
            faults.append(fault[:_FAILURE_CHARS])

    tasks = [asyncio.create_task(one(at)) for at in due]
    _done, unfinished = await asyncio.wait(tasks, timeout=arrivals.seconds + arrivals.grace_s)
    cpu_s = cpu.spent_s()
    answered = len(latencies)
    in_time = sum(latency <= arrivals.deadline_s for latency in latencies)
    for task in unfinished:
        task.cancel()
    await asyncio.gather(*unfinished, return_exceptions=True)
    return Open(
        sessions=len(due),
        answered=answered,
        late_share=1 - in_time / len(due),
        latency_ms=Distribution.of(latencies),
        cpu_ms=None if cpu_s is None or not answered else cpu_s * 1000 / answered,
        failure=faults[0] if faults else "",
    )


async def _session(serving: Serving, thorough: bool = False, answered: Callable[[], None] = lambda: None) -> str:
    """Opens a session, shows the crop and closes it; returns the fault of its answer. `answered`: the crop is there."""
    async with serving.session(sample_image()) as session:
        fault = CROP.fault(await session.run(CROP.cell), thorough)
        if not fault:
            answered()
    return fault


class _Cpu:
    """CPU seconds since it was made, of this process, its children that have ended, and what serves."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        self._own, self._served = _own_s(), footprint.cpu_seconds(serving.processes())

    def spent_s(self) -> float | None:
        served = footprint.cpu_seconds(self._serving.processes())
        if served.keys() - {""} != self._served.keys() - {""}:
            return None
        return _own_s() - self._own + sum(served.values()) - sum(self._served.values())


def _own_s() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
