from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from benchmarks.sandbox_bench import footprint, report
from benchmarks.sandbox_bench.contender import Serving, Session, Traits, with_room
from benchmarks.sandbox_bench.loop import Plan, drive, measure_crowd, measure_level, parse_levels
from benchmarks.sandbox_bench.results import Distribution, Level
from benchmarks.sandbox_bench.workloads import CROP, CROP_BOX, FIGURE, MEASURES, TRIVIAL, Workload, sample_image
from codedance_verl.errors import UserError
from codedance_verl.sandbox.config import SandboxConfig
from codedance_verl.types import Execution, ExecutionError, ExecutionStatus, RenderedImage

SHORT = Plan(seconds=0.05, budget_s=5.0)


def rendered(image: Image.Image) -> RenderedImage:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return RenderedImage("", image.width, image.height, buffer.getvalue())


def right_answers() -> dict[str, Execution]:
    crop = Image.open(io.BytesIO(sample_image())).convert("RGB").crop(CROP_BOX)
    figure = Image.linear_gradient("L").resize((640, 480)).convert("RGB")
    return {
        TRIVIAL.cell: Execution(ExecutionStatus.OK, "2\n"),
        CROP.cell: Execution(ExecutionStatus.OK, images=(rendered(crop),)),
        FIGURE.cell: Execution(ExecutionStatus.OK, images=(rendered(figure),)),
    }


class Scripted:
    """A contender whose sessions answer as they are told: one that fails, hangs or refuses when it must."""

    name = "scripted"
    traits = Traits(isolated=False)

    def __init__(self, hang_on: str = "", refuse: bool = False) -> None:
        self.answers = right_answers()
        self.hang_on, self.refuse = hang_on, refuse
        self.opened = self.closed = self.calls = 0

    @contextlib.asynccontextmanager
    async def serving(self, sessions: int) -> AsyncIterator[Serving]:
        yield self

    @contextlib.asynccontextmanager
    async def session(self, image: bytes) -> AsyncIterator[Session]:
        if self.refuse:
            raise ConnectionError("no more")
        self.opened += 1
        try:
            yield self
        finally:
            self.closed += 1

    async def run(self, code: str) -> Execution:
        self.calls += 1
        await asyncio.sleep(60 if code == self.hang_on else 0.001)
        return self.answers[code]

    def processes(self) -> list[int]:
        return [os.getpid()]


def level_of(contender: Scripted, sessions: int = 3, plan: Plan = SHORT) -> Level:
    return asyncio.run(measure_level(contender, sessions, plan, lambda _line: None))


def test_quantiles_are_in_milliseconds() -> None:
    found = Distribution.of([number / 1000 for number in range(1, 101)])
    assert found is not None and found.count == 100 and found.max == 100
    assert (found.p50, found.mean) == (50.5, 50.5)
    assert 95 < found.p95 < 96 < 99 < found.p99 < 100
    assert Distribution.of([]) is None


def test_a_level_holds_every_measure_and_closes_what_it_opened() -> None:
    contender = Scripted()
    level = level_of(contender)
    assert level.incomplete == "" and tuple(level.measures) == MEASURES and level.memory_mib is not None
    assert contender.opened == contender.closed >= 3
    for measure in level.measures.values():
        assert measure.latency_ms is not None and measure.latency_ms.count >= 3 and measure.sound
        assert 1.0 <= measure.latency_ms.p50 <= measure.latency_ms.p99 or measure is level.measures["open"]


def test_throughput_is_what_all_sessions_do_together() -> None:
    contender = Scripted()
    measure = asyncio.run(drive([contender] * 4, TRIVIAL, replace(SHORT, seconds=0.2), contender))
    assert measure.latency_ms is not None
    assert measure.latency_ms.count == contender.calls - 4  # the first call of each is not timed
    assert measure.calls_per_s == pytest.approx(measure.latency_ms.count / measure.seconds)
    assert measure.seconds >= 0.2


def test_a_wrong_answer_ends_the_level_and_is_told() -> None:
    contender = Scripted()
    error = ExecutionError("ValueError", "no", "ValueError: no")
    contender.answers[CROP.cell] = Execution(ExecutionStatus.ERROR, error=error)
    level = level_of(contender)
    assert "crop: error: ValueError: no" in level.incomplete
    assert FIGURE.name not in level.measures and level.measures[CROP.name].failed == 3
    assert contender.opened == contender.closed


def test_a_session_that_hangs_is_cut_at_the_budget() -> None:
    level = level_of(Scripted(hang_on=FIGURE.cell), plan=Plan(seconds=0.05, budget_s=0.3))
    assert level.incomplete == "figure: not done within 0.3 s"
    assert level.measures[FIGURE.name].cut and level.measures[CROP.name].sound


def test_a_contender_that_does_not_open_is_a_result() -> None:
    level = level_of(Scripted(refuse=True))
    assert "ConnectionError: no more" in level.incomplete and level.measures["open"].latency_ms is None


def test_a_crowd_is_open_all_at_once() -> None:
    contender = Scripted()
    crowd = asyncio.run(measure_crowd(contender, 100, SHORT))
    assert (crowd.sessions, crowd.answered, contender.opened, contender.closed) == (100, 100, 100, 100)
    assert crowd.again_ms is not None and crowd.again_ms.count == 100 and contender.calls == 200


@pytest.mark.parametrize(
    ("workload", "answer", "thorough", "told"),
    [
        (TRIVIAL, Execution(ExecutionStatus.OK, "3\n"), False, "printed"),
        (TRIVIAL, Execution(ExecutionStatus.TIMEOUT), False, "timeout"),
        (CROP, Execution(ExecutionStatus.OK), False, "images of sizes []"),
        (CROP, Execution(ExecutionStatus.OK, images=(rendered(Image.new("RGB", (8, 8))),)), False, "(8, 8)"),
        (CROP, Execution(ExecutionStatus.OK, images=(rendered(Image.new("RGB", (256, 256))),)), True, "another"),
        (FIGURE, Execution(ExecutionStatus.OK, images=(rendered(Image.new("RGB", (640, 480))),)), True, "another"),
    ],
)
def test_what_is_wrong_with_an_answer(workload: Workload, answer: Execution, thorough: bool, told: str) -> None:
    assert told in workload.fault(answer, thorough)


def test_right_answers_have_no_fault() -> None:
    answers = right_answers()
    assert [item.fault(answers[item.cell], thorough=True) for item in (TRIVIAL, CROP, FIGURE)] == ["", "", ""]


def test_memory_of_a_process_and_of_those_that_have_ended() -> None:
    hold = (
        "import sys; data = bytearray(64 << 20); data[::4096] = b'x' * len(data[::4096]); print(1, flush=True); input()"
    )
    command = [sys.executable, "-I", "-c", hold, "held-by-this-test"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline()
        assert footprint.processes_naming(["held-by-this-test"]) == [process.pid]
        assert process.pid in footprint.descendants([os.getpid()])
        assert 64 < footprint.memory_bytes([process.pid]) / (1 << 20) < 128
        process.communicate(b"\n")
    assert footprint.memory_bytes([process.pid]) == 0


def test_cpu_time_of_processes_grows_with_their_work() -> None:
    spin = "import time\nwhile time.process_time() < 0.5: pass\nprint(1, flush=True); input()"
    with subprocess.Popen([sys.executable, "-I", "-c", spin], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        before = footprint.cpu_seconds([process.pid])
        assert process.stdout is not None and process.stdout.readline()
        after = footprint.cpu_seconds([process.pid])
        assert list(before) == list(after) == [""] and 0.4 < after[""] < 5.0 and after[""] > before[""]
        process.communicate(b"\n")


def test_levels_are_read_from_text() -> None:
    assert parse_levels("1,8,64") == (1, 8, 64)
    for text in ("", "a", "1,,2", "0"):
        with pytest.raises(UserError):
            parse_levels(text)


def test_room_is_made_only_where_it_lacks() -> None:
    config = SandboxConfig(containers=2, sessions_per_container=128)
    assert with_room(config, 256) is config
    roomy = with_room(config, 1000)
    assert roomy.containers * roomy.sessions_per_container >= 1000 and roomy.pids >= 2 * roomy.sessions_per_container


def test_the_json_holds_machine_parameters_and_quantiles(tmp_path: Path) -> None:
    contender = Scripted()
    level = level_of(contender)
    found = report.document(report.machine_facts(), SHORT, [3], [report.record(contender, [level])])
    report.write(tmp_path / "new" / "results.json", found)
    read = json.loads((tmp_path / "new" / "results.json").read_text())
    assert read["machine"]["cores"] >= 1 and read["parameters"]["levels"] == [3]
    (one,) = read["contenders"]
    assert one["name"] == "scripted" and one["isolated"] is False
    assert {"count", "mean", "p50", "p95", "p99", "max"} == set(one["levels"][0]["measures"]["crop"]["latency_ms"])


def test_the_table_fits_a_terminal_and_names_every_measure() -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(report.table("scripted", [level_of(Scripted()), Level(64, incomplete="broken")]))
    shown = console.export_text()
    assert all(name in shown for name in (*MEASURES, "p99", "calls/s")) and "…" not in shown
