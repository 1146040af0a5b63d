"""The sandbox under a stated load, and by the number of cores: `python -m benchmarks.sandbox_load [--quick]`.

Open loop: sessions with one crop each arrive at a stated rate (`sandbox_bench.arrivals`), at this project's sandbox, at
processes that stay, at a process a session and at a container a session. Scaling: a closed loop on the first 1, 2, 4,
... cores of the machine; what is compared is the rate by core. Writes `results.json` and `plot.png`.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import os
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

from benchmarks import sandbox, sandbox_load_plot
from benchmarks.sandbox_bench import report
from benchmarks.sandbox_bench.arrivals import Arrivals, measure_arrivals
from benchmarks.sandbox_bench.contender import PoolContender, ServingPool
from benchmarks.sandbox_bench.loop import Plan, measure_level, parse_levels
from benchmarks.sandbox_bench.results import Measure
from benchmarks.sandbox_peers import fresh
from benchmarks.sandbox_peers.answers import Unavailable
from codedance_verl.errors import UserError
from codedance_verl.sandbox.config import SandboxConfig
from codedance_verl.sandbox.docker import engine

KINDS = (
    *(kind for kind in sandbox.KINDS if kind.key in ("ours", "plain", "containers")),
    sandbox.Kind("fresh", fresh.FreshProcesses.name, fresh.contender),
)
CALLERS_A_CORE = 8
SCALED = ("open", "trivial", "crop")

Found = dict[str, Any]


def open_loop(kinds: Sequence[sandbox.Kind], arrivals: Arrivals) -> list[Found]:
    """Runs the open loop against each kind, one after another."""
    found = []
    for kind in kinds:
        one: Found = {"name": kind.name, "unavailable": "", "open": None}
        try:
            contender = kind.load()
            measured = asyncio.run(measure_arrivals(contender, arrivals))
        except Unavailable as missing:
            one["unavailable"] = str(missing)
        except Exception as error:  # the others are still to be measured
            one["unavailable"] = f"{type(error).__name__}: {error}"[:500]
        else:
            one |= {"isolated": contender.traits.isolated, "open": dataclasses.asdict(measured)}
        print(f"{kind.name}: {one['unavailable'] or measured}", file=sys.stderr, flush=True)
        found.append(one)
    return found


class PinnedPool(PoolContender):
    """This project's pool whose containers run on the cores of the measuring process."""

    @asynccontextmanager
    async def serving(self, sessions: int) -> AsyncIterator[ServingPool]:
        async with super().serving(sessions) as serving:
            if self._config.backend == "docker":  # processes inherit the cores
                await asyncio.to_thread(_pin, serving.interpreters)
            yield serving


def _pin(containers: Sequence[str]) -> None:
    client = engine.connect()
    if client is None:
        raise UserError("no Docker engine answers")
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))))
    with closing(client):
        for name in containers:
            client.api.update_container(name, cpuset_cpus=cores)


@contextmanager
def on_cores(cores: int) -> Iterator[None]:
    """Keeps this process, and what it starts, to the first `cores` of those it may use."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(allowed)[:cores])
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def scaling(counts: Sequence[int], plan: Plan, backend: str) -> list[Found]:
    """Runs the closed loop of this project's pool on so many cores each, with `CALLERS_A_CORE` callers a core."""
    found = []
    for cores in counts:
        # a container that is started later would not be pinned
        config = SandboxConfig(backend=backend, standby_containers=0, recycle_sessions=1_000_000)
        contender = PinnedPool(config)
        with on_cores(cores):
            level = asyncio.run(measure_level(contender, CALLERS_A_CORE * cores, plan, lambda _: None))
        rates = {name: level.measures[name].calls_per_s for name in SCALED if name in level.measures}
        line: Found = {
            "cores": cores,
            "callers": CALLERS_A_CORE * cores,
            "calls_per_s": rates,
            "calls_per_s_and_core": {name: rate / cores for name, rate in rates.items()},
            "calls_per_cpu_s": {name: rate for name in rates if (rate := _per_cpu_s(level.measures[name]))},
            "incomplete": level.incomplete,
        }
        found.append(line)
        shown = (
            f"{name} {rate / cores:.0f} ({line['calls_per_cpu_s'].get(name, 0.0):.0f})" for name, rate in rates.items()
        )
        print(
            f"{cores} cores, a second and core (a second of CPU time): {', '.join(shown)} {level.incomplete}",
            file=sys.stderr,
            flush=True,
        )
    return found


def _per_cpu_s(measure: Measure) -> float | None:
    """Returns the calls in a second of CPU time, which other work on the machine disturbs far less than the rate."""
    served = measure.serving_cpu_ms
    return None if served is None else 1000 / (served + measure.client_cpu_ms)


def core_counts(cores: int) -> tuple[int, ...]:
    """Returns 1, 2, 4, ... and the number of cores itself."""
    return tuple(sorted({*(2**power for power in range(cores.bit_length()) if 2**power <= cores), cores}))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--only", default="", help=f"some of {','.join(kind.key for kind in KINDS)}; none: scaling alone"
    )
    parser.add_argument("--rate", type=float, default=Arrivals.rate, help="sessions a second that arrive")
    parser.add_argument("--deadline", type=float, default=Arrivals.deadline_s, help="seconds; a later crop is late")
    parser.add_argument("--seconds", type=float, default=Arrivals.seconds, help="for which sessions arrive")
    parser.add_argument(
        "--cores", default="", help="numbers of cores, as in 1,2; none: no scaling; default: 1, 2, 4, ..."
    )
    parser.add_argument("--backend", default="docker", help="of the sandbox, in the scaling: docker, process")
    parser.add_argument("--quick", action="store_true", help="a rough idea: 4 seconds of arrivals, short loops")
    parser.add_argument("--output", type=Path, default=Path("outputs/benchmarks/sandbox_load"))
    given = parser.parse_args()
    arrivals = Arrivals(given.rate, 4.0 if given.quick else given.seconds, given.deadline)
    plan = Plan(0.5) if given.quick else Plan()
    cores = len(os.sched_getaffinity(0))
    try:
        kinds = choose(given.only)
        counts = () if given.cores == "none" else parse_levels(given.cores) if given.cores else core_counts(cores)
        if counts and max(counts) > cores:
            raise UserError(f"--cores {given.cores}: there are {cores}")
        found = {
            "machine": report.machine_facts(),
            "arrivals": dataclasses.asdict(arrivals),
            "open_loop": open_loop(kinds, arrivals),
            "scaling": scaling(counts, plan, given.backend),
        }
    except UserError as error:
        parser.exit(2, f"error: {error}\n")
    report.write(given.output / "results.json", found)
    sandbox_load_plot.draw(found, given.output / "plot.png")
    print(f"written: {given.output}/results.json, {given.output}/plot.png")


def choose(only: str) -> list[sandbox.Kind]:
    """Returns the kinds that were asked for: all by default. Raises `UserError`."""
    wanted = {kind.key for kind in KINDS} if not only else set(only.split(",")) - {"none"}
    if unknown := wanted - {kind.key for kind in KINDS}:
        raise UserError(f"--only {','.join(sorted(unknown))}: known are {','.join(kind.key for kind in KINDS)}, none")
    return [kind for kind in KINDS if kind.key in wanted]


if __name__ == "__main__":
    main()
