"""The open loop against a stand-in that answers as slowly as it is told, and the reading of options."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from benchmarks import sandbox_load, sandbox_load_plot
from benchmarks.sandbox_bench.arrivals import Arrivals, measure_arrivals
from benchmarks.sandbox_bench.contender import Traits
from benchmarks.sandbox_bench.workloads import CROP_BOX, sample_image
from benchmarks.sandbox_peers import fresh
from benchmarks.sandbox_peers.answers import answer
from codedance_verl.errors import UserError
from codedance_verl.types import Execution


def crop() -> bytes:
    buffer = io.BytesIO()
    Image.open(io.BytesIO(sample_image())).convert("RGB").crop(CROP_BOX).save(buffer, "PNG")
    return buffer.getvalue()


class Queue:
    """Serves one session at a time, each for so many seconds; every `failing`-th shows nothing."""

    name = "a queue"
    traits = Traits(isolated=False)

    def __init__(self, seconds: float, failing: int = 0) -> None:
        self._seconds, self._failing = seconds, failing
        self._one = asyncio.Semaphore(1)
        self.begun = self.live = 0

    @contextlib.asynccontextmanager
    async def serving(self, sessions: int) -> AsyncIterator[Any]:
        yield self

    @contextlib.asynccontextmanager
    async def session(self, image: bytes) -> AsyncIterator[Any]:
        self.begun, self.live = self.begun + 1, self.live + 1
        try:
            yield self
        finally:
            self.live -= 1

    async def run(self, code: str) -> Execution:
        fails = self._failing and self.begun % self._failing == 0
        async with self._one:
            await asyncio.sleep(self._seconds)
        return await answer("", [] if fails else [crop()])

    def processes(self) -> list[int]:
        return []


def test_arrivals_have_their_rate_and_are_the_same_for_every_contender() -> None:
    times = list(Arrivals(rate=50, seconds=40).times())
    assert times == sorted(times) == list(Arrivals(rate=50, seconds=40).times())
    assert len(times) == pytest.approx(2000, rel=0.1) and max(times) < 40


def test_what_waits_behind_earlier_sessions_is_late_though_its_own_call_is_short() -> None:
    queue = Queue(seconds=0.05)
    arrivals = Arrivals(rate=400, seconds=0.05, deadline_s=0.4, grace_s=300, warm_up=0)
    found = asyncio.run(measure_arrivals(queue, arrivals))
    assert found.sessions == found.answered == queue.begun > 12
    # at most eight can be done within the deadline of the first, and the last arrives 0.05 s after it
    assert found.late_share >= 1 - 9 / found.sessions
    assert found.latency_ms is not None and found.latency_ms.max >= 50 * (found.sessions - 1) - 50
    assert queue.live == 0


def test_sessions_without_an_answer_are_late_and_told() -> None:
    found = asyncio.run(measure_arrivals(Queue(0.0, failing=2), Arrivals(200, 0.1, deadline_s=30, warm_up=1)))
    assert 0 < found.answered < found.sessions
    assert found.late_share == pytest.approx(1 - found.answered / found.sessions)
    assert "showed images of sizes []" in found.failure


def test_what_is_not_done_in_the_time_of_grace_is_given_up() -> None:
    queue = Queue(seconds=60)
    found = asyncio.run(measure_arrivals(queue, Arrivals(100, 0.05, grace_s=0.1, warm_up=0)))
    assert (found.answered, found.late_share, found.latency_ms, queue.live) == (0, 1.0, None, 0)


def test_a_process_each_shows_the_crop_and_is_gone_afterwards() -> None:
    found = asyncio.run(measure_arrivals(fresh.contender(), Arrivals(4, 0.5, deadline_s=60, grace_s=60, warm_up=1)))
    assert (found.failure, found.late_share) == ("", 0.0)
    assert found.cpu_ms is not None and found.cpu_ms > 1  # of children that have ended


def test_cores_are_doubled_up_to_all_of_them() -> None:
    assert sandbox_load.core_counts(1) == (1,)
    assert sandbox_load.core_counts(6) == (1, 2, 4, 6)
    assert sandbox_load.core_counts(8) == (1, 2, 4, 8)


def test_a_measurement_on_fewer_cores_leaves_the_others_usable_afterwards() -> None:
    before = os.sched_getaffinity(0)
    with sandbox_load.on_cores(1):
        assert len(os.sched_getaffinity(0)) == 1
    assert os.sched_getaffinity(0) == before


def test_kinds_are_chosen_by_name() -> None:
    assert {kind.key for kind in sandbox_load.choose("")} == {"ours", "plain", "containers", "fresh"}
    assert sandbox_load.choose("none") == []
    with pytest.raises(UserError, match="jupyter"):
        sandbox_load.choose("ours,jupyter")


def test_the_plot_is_drawn_from_what_there_is(tmp_path: Path) -> None:
    latency = {"count": 9, "mean": 9.0, "p50": 8.0, "p95": 9.0, "p99": 10.0, "max": 11.0}
    found = {
        "machine": {"cores": 2},
        "arrivals": {"rate": 25.0, "deadline_s": 0.25},
        "open_loop": [
            {"name": "ours (docker)", "open": {"latency_ms": latency, "late_share": 0.1}},
            {"name": "a process each", "open": {"latency_ms": None, "late_share": 1.0}},
            {"name": "a container each", "unavailable": "no engine", "open": None},
        ],
        "scaling": [{"cores": 1, "calls_per_s": {"crop": 80.0}, "calls_per_s_and_core": {"crop": 80.0}}],
    }
    sandbox_load_plot.draw(found, tmp_path / "plot.png")
    sandbox_load_plot.draw({**found, "open_loop": [], "scaling": []}, tmp_path / "empty.png")
    with Image.open(tmp_path / "plot.png") as drawn:
        assert drawn.width > 1000
