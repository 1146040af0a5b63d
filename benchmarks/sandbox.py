"""The sandbox beside other ways to run model-written code, in one run: `python -m benchmarks.sandbox [--quick]`.

Writes `results.json` and `plot.png`, prints tables, ratios, and what the sandbox is held to. The closed loop and its
cells are those of `codedance sandbox bench` (codedance_verl/sandbox/bench); README.md tells how to read the results.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import importlib
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from benchmarks import sandbox_bars, sandbox_plot
from benchmarks.sandbox_bench import report
from benchmarks.sandbox_bench.contender import Contender, PoolContender
from benchmarks.sandbox_bench.loop import Plan, measure_crowd, measure_level, parse_levels
from benchmarks.sandbox_bench.results import Crowd, Level
from benchmarks.sandbox_peers.answers import Unavailable
from codedance_verl.errors import UserError
from codedance_verl.sandbox.config import MIB, SandboxConfig

LEVELS = "1,8,64,256"
CROWD = 1000
PACKAGES = ("docker", "ipykernel", "jupyter_client", "llm-sandbox", "matplotlib", "numpy", "pillow", "ray")
MEMORY_SHARE = 0.5
"""Of the memory that is available, how much the sessions of one level may be expected to take."""

DISTURBED_SHARE = 0.1

Found = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Kind:
    """A contender's name on the command line and in the results, and how to get it; `load` may raise `Unavailable`."""

    key: str
    name: str
    load: Callable[[], Contender]


def _pool(backend: str, through_ray: bool = False) -> Callable[[], Contender]:
    return lambda: PoolContender(SandboxConfig(backend=backend), through_ray)


def _peer(module: str) -> Callable[[], Contender]:
    return lambda: importlib.import_module(f"benchmarks.sandbox_peers.{module}").contender()


KINDS = (
    Kind("ours", sandbox_bars.OURS, _pool("docker")),
    Kind("bare", sandbox_bars.BARE, _peer("bare")),
    Kind("plain", sandbox_bars.PLAIN, _peer("processes")),
    Kind("process", "ours (process)", _pool("process")),
    Kind("containers", "a container each", _peer("containers")),
    Kind("llm-sandbox", "llm-sandbox", _peer("llm_sandbox")),
    Kind("jupyter", "Jupyter kernels", _peer("jupyter")),
    Kind("fusion", "SandboxFusion", _peer("fusion")),
)
THROUGH_RAY = Kind("ray", "ours (docker, Ray)", _pool("docker", through_ray=True))


def measure(kind: Kind, levels: Sequence[int], plan: Plan) -> Found:
    """Measures one contender, as JSON. It goes no higher than where it fails, runs late or needs the memory."""
    try:
        contender = kind.load()
    except Unavailable as missing:
        _say(f"{kind.name}: {missing}")
        return {"name": kind.name, "isolated": False, "unavailable": str(missing), "levels": [], "crowd": None}
    found: list[Level] = []
    for sessions in levels:
        reason = _reason_to_stop(contender, sessions, found)
        if reason:
            _say(f"{kind.name}, {sessions} sessions: {reason}")
            found.append(Level(sessions, incomplete=reason))
        else:
            found.append(asyncio.run(measure_level(contender, sessions, plan, _say)))
            if found[-1].incomplete:
                _say(f"{kind.name}, {sessions} sessions, incomplete: {found[-1].incomplete}")
    return report.record(contender, found)


def _reason_to_stop(contender: Contender, sessions: int, found: Sequence[Level]) -> str:
    if sessions > contender.traits.most_sessions:
        return f"not tried with more than {contender.traits.most_sessions} sessions"
    if found and found[-1].incomplete:
        return f"not tried, since it was not done with {found[-1].sessions}"
    expected = (found[-1].memory_mib or 0.0) * sessions if found else 0.0
    allowed = psutil.virtual_memory().available / MIB * MEMORY_SHARE
    return f"not tried, it would need {expected:.0f} MiB, {allowed:.0f} are to spare" if expected > allowed else ""


def measure_idle(sessions: int, plan: Plan) -> Crowd | None:
    """Many live sessions of ours."""
    try:
        crowd = asyncio.run(measure_crowd(KINDS[0].load(), sessions, plan))
    except Exception as error:  # the rest of the results must not be lost
        _say(f"{sessions} live sessions: {type(error).__name__}: {error}")
        return None
    _say(f"{sessions} live sessions, open after {crowd.open_seconds:.1f} s, {crowd.memory_mib:.2f} MiB each")
    return crowd


def show(found: Found) -> None:
    """Tables of ratios and demands."""
    console = Console()
    ratios = Table(title="our throughput over that of others", title_justify="left")
    for name in ("other", "cell", "sessions", "times", "by CPU time"):
        ratios.add_column(name, justify="left" if name in ("other", "cell") else "right")
    for ratio in sandbox_bars.ratios(found):
        by_cpu = "" if ratio.cpu_times is None else f"{ratio.cpu_times:.2f}"
        ratios.add_row(ratio.other, ratio.cell, str(ratio.sessions), f"{ratio.times:.2f}", by_cpu)
    console.print(ratios)
    demands = Table(title="demands", title_justify="left")
    for name in ("", "demand", "bound", "measured", ""):
        demands.add_column(name)
    marks = {True: "[green]pass[/]", False: "[red]FAIL[/]", None: "-"}
    for bar in sandbox_bars.bars(found):
        bound = f"{'at most' if bar.at_most else 'at least'} {bar.bound:g} {bar.unit}"
        value = "not measured" if bar.measured is None else f"{bar.measured:.2f} {bar.unit}"
        demands.add_row(marks[bar.passed], bar.demand, bound, value, bar.detail)
    console.print(demands)
    disturbed = sandbox_bars.other_work(found)
    if disturbed is not None and disturbed > DISTURBED_SHARE:
        console.print(f"[yellow]Other work took {disturbed:.0%} of the cores meanwhile: compare by CPU time.[/]")


def run(kinds: Sequence[Kind], levels: Sequence[int], plan: Plan, crowd: int, output: Path) -> Found:
    """Measures all, writing what is known after each, so that an interrupted run is not lost."""
    found = report.document(report.machine_facts(), plan, levels, [])
    found["versions"] = report.versions(PACKAGES)
    found["release"] = [dataclasses.asdict(item) for item in sandbox_bars.RELEASE]
    began = time.monotonic()
    for kind in kinds:
        contender = measure(kind, levels, plan)
        if kind is KINDS[0] and crowd:
            idle = measure_idle(crowd, plan)
            contender["crowd"] = None if idle is None else dataclasses.asdict(idle)
        found["contenders"].append(contender)
        found["seconds"] = round(time.monotonic() - began, 1)
        found["bars"] = [{**dataclasses.asdict(bar), "passed": bar.passed} for bar in sandbox_bars.bars(found)]
        found["ratios"] = [dataclasses.asdict(ratio) for ratio in sandbox_bars.ratios(found)]
        found["other_work"] = sandbox_bars.other_work(found)
        report.write(output / "results.json", found)
    sandbox_plot.draw(found, output / "plot.png")
    return found


def choose(only: str, through_ray: bool) -> list[Kind]:
    """The kinds that were asked for, in the order of KINDS. Raises `UserError`."""
    offered = [*KINDS[:1], THROUGH_RAY, *KINDS[1:]] if through_ray else list(KINDS)
    wanted = set(only.split(",")) if only else {kind.key for kind in offered}
    unknown = wanted - {kind.key for kind in offered}
    if unknown:
        raise UserError(f"--only {','.join(sorted(unknown))}: known are {','.join(kind.key for kind in offered)}")
    return [kind for kind in offered if kind.key in wanted]


def _say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--levels", default=LEVELS, help="numbers of concurrent sessions")
    parser.add_argument("--only", default="", help=f"some of {','.join(kind.key for kind in KINDS)}")
    parser.add_argument("--seconds", type=float, default=Plan.seconds, help="duration of one measurement")
    parser.add_argument("--budget", type=float, default=Plan.budget_s, help="seconds after which a measurement is cut")
    parser.add_argument("--crowd", type=int, default=CROWD, help="live sessions to weigh, 0 for none")
    parser.add_argument("--quick", action="store_true", help="a rough idea: levels 1 and 8, short, 100 live sessions")
    parser.add_argument("--ray", action="store_true", help="measure ours through Ray's actor as well")
    parser.add_argument("--output", type=Path, default=Path("outputs/benchmarks/sandbox"))
    given = parser.parse_args()
    try:
        kinds = choose(given.only, given.ray)
        levels = (1, 8) if given.quick else parse_levels(given.levels)
        plan = Plan(0.5 if given.quick else given.seconds, given.budget)
        found = run(kinds, levels, plan, min(given.crowd, 100) if given.quick else given.crowd, given.output)
    except UserError as error:
        parser.exit(2, f"error: {error}\n")
    show(found)
    print(f"written: {given.output}/results.json, {given.output}/plot.png")


if __name__ == "__main__":
    main()
