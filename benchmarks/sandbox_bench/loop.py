"""The closed loop: K callers, each of which sends its next call as soon as the last is answered."""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import psutil

from benchmarks.sandbox_bench import footprint
from benchmarks.sandbox_bench.contender import Contender, Serving, Session
from benchmarks.sandbox_bench.results import Crowd, Distribution, Level, Measure
from benchmarks.sandbox_bench.workloads import FIRST_CALL, OPEN, TRIVIAL, WORKLOADS, Workload, sample_image
from codedance_verl.errors import UserError
from codedance_verl.sandbox.config import MIB

_OPENING_AT_ONCE = 64
_SETTLE_SECONDS = 0.5
_DESCRIPTORS = 16_384
_FAILURE_CHARS = 500

Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """Duration of measurements, in seconds: each closed loop runs for `seconds` and is cut after `budget_s`."""

    seconds: float = 3.0
    budget_s: float = 40.0


def parse_levels(text: str) -> tuple[int, ...]:
    """Numbers of sessions, as in `1,8,64`. Raises `UserError`."""
    try:
        levels = tuple(int(part) for part in text.split(","))
    except ValueError:
        levels = ()
    if not levels or min(levels) < 1:
        raise UserError(f"levels={text!r}: numbers of sessions are needed, separated by commas, as in 1,8,64")
    return levels


async def measure_levels(contender: Contender, levels: Sequence[int], plan: Plan, say: Say) -> list[Level]:
    """`measure_level` at each of `levels`, one after another."""
    return [await measure_level(contender, sessions, plan, say) for sessions in levels]


async def measure_level(contender: Contender, sessions: int, plan: Plan, say: Say) -> Level:
    """Opens `sessions`, then runs every workload on them; `say` hears of each measure.

    What goes wrong does not raise: it ends the level, whose `incomplete` tells.
    """
    _raise_descriptor_limit()
    began = time.perf_counter()
    level = Level(sessions)
    try:
        async with contender.serving(sessions) as serving, _Live() as live:
            start_s = time.perf_counter() - began
            level = replace(level, start_s=start_s, base_mib=await _memory_mib(serving))
            async for name, grown in _steps(serving, live, level, plan):
                level = grown
                say(f"{contender.name}, {sessions} sessions, {name}: {level.measures[name]}")
    except Exception as error:  # that a contender fails is a result, and the others are still to be measured
        level = replace(level, incomplete=f"{type(error).__name__}: {error}"[:_FAILURE_CHARS])
    return level


async def _steps(serving: Serving, live: _Live, level: Level, plan: Plan) -> AsyncIterator[tuple[str, Level]]:
    """The level, grown by one measure at a time; ends with the first that is not sound."""
    opened, called = await live.open_all(serving, level.sessions, plan)
    level = replace(level, measures={OPEN: opened})
    yield OPEN, _judged(level, plan)
    level = _judged(replace(level, measures={**level.measures, FIRST_CALL: called}), plan)
    yield FIRST_CALL, level
    for workload in WORKLOADS:
        if level.incomplete:
            return
        measure = await drive(live.sessions, workload, plan, serving)
        level = _judged(replace(level, measures={**level.measures, workload.name: measure}), plan)
        if workload is TRIVIAL:
            level = replace(level, memory_mib=(await _memory_mib(serving) - level.base_mib) / level.sessions)
        yield workload.name, level


def _judged(level: Level, plan: Plan) -> Level:
    for name, measure in level.measures.items():
        if not measure.sound:
            return replace(level, incomplete=f"{name}: {measure.failure or f'not done within {plan.budget_s:g} s'}")
    return level


async def measure_crowd(contender: Contender, sessions: int, plan: Plan) -> Crowd:
    """Holds `sessions` open at once, weighs them idle, and has each answer again. Raises what opening raises."""
    _raise_descriptor_limit()
    gate = asyncio.Semaphore(_OPENING_AT_ONCE)
    async with contender.serving(sessions) as serving, _Live() as live:
        base = await _memory_mib(serving)
        began = time.perf_counter()

        async def join() -> str:
            async with gate:
                session = await live.add(serving)
                return TRIVIAL.fault(await session.run(TRIVIAL.cell))

        faults = [fault for fault in await asyncio.gather(*(join() for _ in range(sessions))) if fault]
        open_seconds = time.perf_counter() - began
        memory = (await _memory_mib(serving) - base) / sessions
        again = await drive(live.sessions, TRIVIAL, replace(plan, seconds=0.0), serving, warm=False)
    failure = faults[0] if faults else again.failure
    return Crowd(sessions, sessions - len(faults), open_seconds, base, memory, again.latency_ms, failure)


async def drive(
    sessions: Sequence[Session], workload: Workload, plan: Plan, serving: Serving, warm: bool = True
) -> Measure:
    """Runs a workload on all sessions for `plan.seconds`, at least once each, `warm`: after an untimed call each."""
    tally = _Tally()
    watch = _Stopwatch(serving)
    if warm:
        cut = await _bounded([_check(session, workload, tally) for session in sessions], plan.budget_s, tally)
        if cut or tally.failed:
            return watch.measure(tally, cut)
        watch = _Stopwatch(serving)
    until = time.perf_counter() + plan.seconds
    cut = await _bounded([_call(session, workload, until, tally) for session in sessions], plan.budget_s, tally)
    return watch.measure(tally, cut)


@dataclass
class _Tally:
    """Latencies, in seconds, of the right answers of one loop; how many others there were, and the first of them."""

    latencies: list[float] = field(default_factory=list)
    failed: int = 0
    failure: str = ""

    def note(self, fault: str) -> None:
        if fault:
            self.failed += 1
            self.failure = self.failure or fault[:_FAILURE_CHARS]


async def _check(session: Session, workload: Workload, tally: _Tally) -> None:
    tally.note(workload.fault(await session.run(workload.cell), thorough=True))


async def _call(session: Session, workload: Workload, until: float, tally: _Tally) -> None:
    """One caller. A wrong answer ends it: what fails at once would else be counted as fast."""
    while True:
        began = time.perf_counter()
        execution = await session.run(workload.cell)
        ended = time.perf_counter()
        if fault := workload.fault(execution):
            tally.note(fault)
            return
        tally.latencies.append(ended - began)
        if ended >= until:
            return


async def _bounded(work: Iterable[Coroutine[Any, Any, None]], budget_s: float, tally: _Tally) -> bool:
    """Runs all at once. Returns whether some had to be cancelled at the end of the budget; errors go to the tally."""
    tasks = [asyncio.create_task(item) for item in work]
    _done, late = await asyncio.wait(tasks, timeout=budget_s)
    for task in late:
        task.cancel()
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(outcome, Exception):
            tally.note(f"{type(outcome).__name__}: {outcome}")
    return bool(late)


class _Stopwatch:
    """Wall and CPU time since it was made."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        self._before = footprint.cpu_seconds(serving.processes())
        self._machine, self._client, self._wall = _machine_cpu_s(), time.process_time(), time.perf_counter()

    def measure(self, tally: _Tally, cut: bool) -> Measure:
        wall = time.perf_counter() - self._wall
        calls = max(len(tally.latencies), 1)
        client, machine = time.process_time() - self._client, _machine_cpu_s() - self._machine
        after = footprint.cpu_seconds(self._serving.processes())
        used = sum(after.values()) - sum(self._before.values()) if after.keys() == self._before.keys() else None
        return Measure(
            Distribution.of(tally.latencies),
            calls_per_s=len(tally.latencies) / wall,
            seconds=wall,
            client_cpu_ms=client * 1000 / calls,
            serving_cpu_ms=None if used is None else used * 1000 / calls,
            machine_cpu_ms=machine * 1000 / calls,
            failed=tally.failed,
            failure=tally.failure,
            cut=cut,
        )


class _Live:
    """The sessions that are open; all are closed at once at the end of the block."""

    def __init__(self) -> None:
        self.sessions: list[Session] = []
        self._stacks: list[AsyncExitStack] = []

    async def __aenter__(self) -> _Live:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(stack.aclose() for stack in self._stacks), return_exceptions=True)

    async def add(self, serving: Serving) -> Session:
        """Opens one session and keeps it."""
        async with AsyncExitStack() as stack:
            session = await stack.enter_async_context(serving.session(sample_image()))
            self._keep(session, stack)
        return session

    async def open_all(self, serving: Serving, sessions: int, plan: Plan) -> tuple[Measure, Measure]:
        """Opens, call once, close, over and over in `sessions` tasks; the last session of each stays open.

        Returns the measures of opening and of the first call.
        """
        opened, called = _Tally(), _Tally()
        watch = _Stopwatch(serving)
        until = time.perf_counter() + plan.seconds

        async def one() -> None:
            while True:
                async with AsyncExitStack() as stack:
                    began = time.perf_counter()
                    session = await stack.enter_async_context(serving.session(sample_image()))
                    ready = time.perf_counter()
                    fault = TRIVIAL.fault(await session.run(TRIVIAL.cell))
                    ended = time.perf_counter()
                    opened.latencies.append(ready - began)
                    called.latencies.append(ended - ready)
                    called.note(fault)
                    if fault or ended >= until:
                        self._keep(session, stack)
                        return

        cut = await _bounded([one() for _ in range(sessions)], plan.budget_s, opened)
        return watch.measure(opened, cut), watch.measure(called, cut)

    def _keep(self, session: Session, stack: AsyncExitStack) -> None:
        self.sessions.append(session)
        self._stacks.append(stack.pop_all())


async def _memory_mib(serving: Serving) -> float:
    await asyncio.sleep(_SETTLE_SECONDS)  # what was closed just now is still being killed
    return await asyncio.to_thread(lambda: footprint.memory_bytes(serving.processes()) / MIB)


def _machine_cpu_s() -> float:
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - times.iowait - times.guest - times.guest_nice)


def _raise_descriptor_limit() -> None:
    """Every session holds a socket: allow as many descriptors as the hard limit does, within reason."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(_DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
