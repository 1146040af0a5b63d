from __future__ import annotations

import asyncio
import copy
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from benchmarks import sandbox, sandbox_bars, sandbox_plot
from benchmarks.sandbox_bench.contender import Contender, Traits
from benchmarks.sandbox_bench.loop import Plan, measure_level
from benchmarks.sandbox_bench.results import Level
from benchmarks.sandbox_bench.workloads import MEASURES, sample_image
from benchmarks.sandbox_peers import bare, fusion, processes
from benchmarks.sandbox_peers.answers import Unavailable
from codedance_verl.errors import UserError

QUICK = Plan(seconds=0.05, budget_s=60.0)


def measure(p50: float, calls_per_s: float) -> dict[str, Any]:
    latency = {"count": 9, "mean": p50, "p50": p50, "p95": 2 * p50, "p99": 3 * p50, "max": 4 * p50}
    cpu = {"client_cpu_ms": 1.0, "serving_cpu_ms": 1000 / calls_per_s, "machine_cpu_ms": 2.0 + 1000 / calls_per_s}
    return {"latency_ms": latency, "calls_per_s": calls_per_s, "seconds": 1.0, "failed": 0, "cut": False, **cpu}


def contender(name: str, isolated: bool, calls_per_s: float, p50: float = 2.0, sessions: int = 64) -> dict[str, Any]:
    measures = {cell: measure(p50, calls_per_s) for cell in MEASURES}
    level = {"sessions": sessions, "memory_mib": 1.5, "base_mib": 9.0, "measures": measures, "incomplete": ""}
    return {"name": name, "isolated": isolated, "unavailable": "", "levels": [level], "crowd": None}


@pytest.fixture
def found() -> dict[str, Any]:
    ours = contender(sandbox_bars.OURS, True, 400.0)
    ours["levels"].append(contender("", True, 100.0, p50=4.0, sessions=1)["levels"][0])
    ours["crowd"] = {"sessions": 1000, "answered": 1000, "memory_mib": 3.0}
    return {
        "machine": {"cores": 2, "memory_gib": 16.0},
        "contenders": [
            ours,
            contender(sandbox_bars.BARE, False, 9000.0, p50=0.5, sessions=1),
            contender(sandbox_bars.PLAIN, False, 800.0),
            contender("slow", True, 20.0),
            contender("faster", True, 50.0),
        ],
    }


def bar(found: dict[str, Any], part: str) -> sandbox_bars.Bar:
    return next(item for item in sandbox_bars.bars(found) if part in item.demand)


def test_ratios_compare_the_same_cell_at_the_same_number_of_sessions(found: dict[str, Any]) -> None:
    ratios = {(item.other, item.cell, item.sessions): item.times for item in sandbox_bars.ratios(found)}
    assert ratios["slow", "crop", 64] == 20.0 and ratios[sandbox_bars.PLAIN, "figure", 64] == 0.5
    assert ratios[sandbox_bars.BARE, "trivial", 1] == pytest.approx(100 / 9000)
    assert not any(other.startswith("ours") for other, _, _ in ratios)


def test_cpu_time_is_compared_where_both_are_known(found: dict[str, Any]) -> None:
    slow = next(item for item in sandbox_bars.ratios(found) if item.other == "slow" and item.cell == "crop")
    assert slow.cpu_times == pytest.approx((1 + 1000 / 20) / (1 + 1000 / 400))
    found["contenders"][3]["levels"][0]["measures"]["crop"]["serving_cpu_ms"] = None
    slow = next(item for item in sandbox_bars.ratios(found) if item.other == "slow" and item.cell == "crop")
    assert slow.cpu_times is None and slow.times == 20.0


def test_work_of_others_is_what_is_left_of_the_machines(found: dict[str, Any]) -> None:
    assert sandbox_bars.other_work(found) == pytest.approx(9 * 0.001 / 2)  # 9 calls a second, 1 ms each, of two cores
    assert sandbox_bars.other_work({**found, "contenders": []}) is None


def test_bars_are_judged_by_the_worst(found: dict[str, Any]) -> None:
    isolated = bar(found, "crop: throughput over every isolated peer")
    assert (isolated.measured, isolated.passed) == (8.0, False) and "faster" in isolated.detail
    plain = bar(found, "crop: throughput over un-isolated")
    assert (plain.measured, plain.passed) == (0.5, False)
    assert bar(found, "warm trivial").measured == 3.5 and bar(found, "warm trivial").passed is False
    assert bar(found, "idle session").passed is True and bar(found, "live sessions").passed is True
    release = bar(found, "crop: throughput over the published release")
    assert (release.measured, release.passed) == (20.0, True)


def test_what_a_core_does_is_read_from_cpu_time(found: dict[str, Any]) -> None:
    crop = bar(found, "crop: a second and core")
    assert crop.measured == pytest.approx(1000 / (1 + 1000 / 400)) and crop.passed
    found["contenders"][0]["levels"][0]["measures"]["crop"]["serving_cpu_ms"] = None
    assert bar(found, "crop: a second and core").passed is None


def test_what_was_not_measured_neither_passes_nor_fails(found: dict[str, Any]) -> None:
    without = copy.deepcopy(found)
    without["contenders"] = without["contenders"][1:]
    assert {item.passed for item in sandbox_bars.bars(without)} == {None}


def test_a_measure_with_wrong_answers_is_not_compared(found: dict[str, Any]) -> None:
    found["contenders"][3]["levels"][0]["measures"]["crop"]["failed"] = 1
    assert not any(item.other == "slow" and item.cell == "crop" for item in sandbox_bars.ratios(found))


def test_the_plot_is_drawn_from_what_there_is(found: dict[str, Any], tmp_path: Path) -> None:
    found["contenders"][3]["levels"][0]["measures"]["figure"]["latency_ms"] = None
    found["contenders"].append({"name": "absent", "isolated": True, "unavailable": "why", "levels": []})
    sandbox_plot.draw(found, tmp_path / "plot.png")
    with Image.open(tmp_path / "plot.png") as drawn:
        assert drawn.width > 1000 and drawn.height > 500


def test_kinds_are_chosen_by_name() -> None:
    assert [kind.key for kind in sandbox.choose("plain,ours", False)] == ["ours", "plain"]
    assert sandbox.THROUGH_RAY in sandbox.choose("", True) and sandbox.THROUGH_RAY not in sandbox.choose("", False)
    with pytest.raises(UserError, match="nothing"):
        sandbox.choose("nothing", False)


def test_a_kind_that_cannot_be_had_says_why() -> None:
    with pytest.raises(Unavailable):
        fusion.contender()
    (kind,) = sandbox.choose("fusion", False)
    assert "container image" in sandbox.measure(kind, [1], QUICK)["unavailable"]


class Heavy:
    name = "heavy"
    traits = Traits(isolated=True, most_sessions=64)


@pytest.mark.parametrize(
    ("sessions", "before", "told"),
    [
        (65, [], "more than 64 sessions"),
        (64, [Level(8, incomplete="broken")], "not done with 8"),
        (64, [Level(8, memory_mib=1e6)], "MiB"),
        (64, [Level(8, memory_mib=0.1)], ""),
    ],
)
def test_a_contender_goes_no_higher_than_makes_sense(sessions: int, before: list[Level], told: str) -> None:
    heavy: Any = Heavy()
    reason = sandbox._reason_to_stop(heavy, sessions, before)
    assert told in reason and bool(told) == bool(reason)


@pytest.mark.parametrize(("peer", "sessions"), [(bare.Bare(), 1), (processes.Processes(2), 5)])
def test_the_peers_without_isolation_answer_rightly(peer: Contender, sessions: int) -> None:
    level = asyncio.run(measure_level(peer, sessions, QUICK, lambda _line: None))
    assert level.incomplete == "" and tuple(level.measures) == MEASURES


def test_sessions_of_plain_processes_have_variables_of_their_own() -> None:
    async def cells() -> tuple[str, str, str]:
        async with (
            processes.Processes(1).serving(2) as serving,
            serving.session(sample_image()) as one,
            serving.session(sample_image()) as other,
        ):
            await one.run("x = 1")
            told = await other.run("x")
            return (await one.run("x")).stdout, told.stdout, told.error.traceback if told.error else ""

    kept, shown, error = asyncio.run(cells())
    assert (kept, shown) == ("1\n", "") and "NameError" in error


def test_results_are_written_also_when_a_contender_is_missing(tmp_path: Path) -> None:
    kinds = sandbox.choose("bare,fusion", False)
    sandbox.run(kinds, [1, 8], QUICK, 0, tmp_path)
    read = json.loads((tmp_path / "results.json").read_text())
    assert [one["name"] for one in read["contenders"]] == ["bare exec", "SandboxFusion"]
    assert "more than 1 session" in read["contenders"][0]["levels"][1]["incomplete"]
    assert read["versions"]["pillow"] and read["bars"] and (tmp_path / "plot.png").stat().st_size > 0
