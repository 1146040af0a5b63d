"""Demands on the sandbox, and its comparison with the others; reads the JSON of `benchmarks.sandbox`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

OURS = "ours (docker)"
BARE = "bare exec"
PLAIN = "plain processes"
RATES = ("open", "trivial", "crop", "figure")
"""What is compared by throughput; `open` is sessions a second that are opened, called once and closed."""

BY_CORE = {"open": 60.0, "trivial": 200.0, "crop": 80.0}
"""Least of each that a core does in a second, by CPU time of the containers and of the pool."""

Found = dict[str, Any]


@dataclass(frozen=True)
class Bar:
    """A demand and what was measured, None where it was not; `at_most` says on which side of `bound` is good."""

    demand: str
    unit: str
    bound: float
    at_most: bool
    measured: float | None
    detail: str = ""

    @property
    def passed(self) -> bool | None:
        if self.measured is None:
            return None
        return self.measured <= self.bound if self.at_most else self.measured >= self.bound


@dataclass(frozen=True)
class Ratio:
    """Our throughput over another's, same cell, same number of sessions, same run.

    `cpu_times` is its CPU time per call over ours, which other work on the machine disturbs far less; None where one of
    both is unknown.
    """

    other: str
    isolated: bool
    cell: str
    sessions: int
    times: float
    cpu_times: float | None


@dataclass(frozen=True)
class Published:
    """The un-isolated pool of the method's published release, measured on another machine with `workers` processes:
    a scale, no contender. Latencies in ms; None: not measured."""

    cell: str
    sessions: int
    workers: int | None
    p50_ms: float | None
    p99_ms: float | None
    calls_per_s: float | None


RELEASE = (
    Published("trivial", 1, None, 29.0, None, None),
    Published("trivial", 64, 2, 1100.0, 1200.0, 39.0),
    Published("trivial", 64, 12, None, 6700.0, 19.0),
    Published("crop", 64, None, 2800.0, None, 20.0),
    Published("figure", 64, None, 6000.0, None, 9.0),
)


def ratios(found: Found, ours: str = OURS) -> list[Ratio]:
    """Every rate at every number of sessions that both we and the other have done."""
    compared = []
    for other in found["contenders"]:
        for sessions, cell, its in _answered(other) if not other["name"].startswith("ours") else ():
            mine = _measure(found, ours, sessions, cell)
            if mine is not None and mine["latency_ms"]:
                times = mine["calls_per_s"] / its["calls_per_s"]
                compared.append(Ratio(other["name"], other["isolated"], cell, sessions, times, _cpu_times(mine, its)))
    return compared


def _cpu_times(mine: Found, its: Found) -> float | None:
    my_cpu, its_cpu = _cpu_ms(mine), _cpu_ms(its)
    return its_cpu / my_cpu if my_cpu and its_cpu else None


def _cpu_ms(measure: Found) -> float | None:
    serving = measure["serving_cpu_ms"]
    return None if serving is None else serving + measure["client_cpu_ms"]


def other_work(found: Found, name: str = OURS) -> float | None:
    """Share of all cores that other work took while a contender was measured, 0 to 1; None where that is not known."""
    cores, taken, whole = found["machine"]["cores"], 0.0, 0.0
    for level in (level for one in found["contenders"] if one["name"] == name for level in one["levels"]):
        for measure in level["measures"].values():
            own = _cpu_ms(measure)
            if own is not None and measure["latency_ms"]:
                taken += (measure["machine_cpu_ms"] - own) / 1000 * measure["latency_ms"]["count"]
                whole += measure["seconds"] * cores
    return min(max(taken / whole, 0.0), 1.0) if whole else None


def bars(found: Found) -> list[Bar]:
    """All demands, measured or not."""
    ratio = ratios(found)
    return [
        *_latency_bars(found),
        *_core_bars(found),
        *_memory_bars(found),
        *_peer_bars(ratio),
        *_release_bars(found),
    ]


def _latency_bars(found: Found) -> Iterator[Bar]:
    warm, bare = (_latency(found, name, 1, "trivial", "p50") for name in (OURS, BARE))
    over = None if warm is None or bare is None else warm - bare
    yield Bar("warm trivial call, p50 over bare exec, 1 session", "ms", 3.0, True, over)
    yield Bar("open with an image, p50, 1 session", "ms", 15.0, True, _latency(found, OURS, 1, "open", "p50"))


def _core_bars(found: Found) -> Iterator[Bar]:
    """What one core does. The latency of 64 callers on a few cores is that of their own queue: see `sandbox_load`."""
    for cell, bound in BY_CORE.items():
        measure = _measure(found, OURS, 64, cell)
        cpu = _cpu_ms(measure) if measure and measure["latency_ms"] else None
        rate = 1000 / cpu if cpu else None
        yield Bar(f"{cell}: a second and core, 64 sessions", "", bound, False, rate, "by CPU time")


def _memory_bars(found: Found) -> Iterator[Bar]:
    crowd = next((one["crowd"] for one in found["contenders"] if one["name"] == OURS), None)
    memory = crowd["memory_mib"] if crowd else None
    answered = float(crowd["answered"]) if crowd else None
    detail = f"at {crowd['sessions']} live sessions" if crowd else ""
    yield Bar("an idle session", "MiB", 4.0, True, memory, detail)
    yield Bar("live sessions that answer", "", 1000.0, False, answered)


def _peer_bars(ratio: Sequence[Ratio]) -> Iterator[Bar]:
    for cell in RATES:
        isolated = [item for item in ratio if item.isolated and item.cell == cell]
        yield _worst(f"{cell}: throughput over every isolated peer", 10.0, isolated)
    for cell in RATES:
        plain = [item for item in ratio if item.other == PLAIN and item.cell == cell]
        yield _worst(f"{cell}: throughput over un-isolated processes", 0.7, plain)


def _worst(demand: str, bound: float, ratio: Sequence[Ratio]) -> Bar:
    worst = min(ratio, key=lambda item: item.times, default=None)
    if worst is None:
        return Bar(demand, "x", bound, False, None)
    return Bar(demand, "x", bound, False, worst.times, f"least with {worst.other}, {worst.sessions} sessions")


def _release_bars(found: Found) -> Iterator[Bar]:
    for published in RELEASE:
        if published.calls_per_s is not None:
            mine = _measure(found, OURS, published.sessions, published.cell)
            times = mine["calls_per_s"] / published.calls_per_s if mine and mine["latency_ms"] else None
            workers = f", {published.workers} workers" if published.workers else ""
            demand = f"{published.cell}: throughput over the published release{workers}, {published.sessions} sessions"
            yield Bar(demand, "x", 10.0, False, times, "measured elsewhere")


def _latency(found: Found, name: str, sessions: int, cell: str, quantile: str) -> float | None:
    measure = _measure(found, name, sessions, cell)
    return measure["latency_ms"][quantile] if measure and measure["latency_ms"] else None


def _measure(found: Found, name: str, sessions: int, cell: str) -> Found | None:
    for contender in found["contenders"]:
        for level in contender["levels"]:
            if contender["name"] == name and level["sessions"] == sessions:
                measure: Found | None = level["measures"].get(cell)
                return measure
    return None


def _answered(contender: Found) -> Iterator[tuple[int, str, Found]]:
    for level in contender["levels"]:
        for cell in RATES:
            measure = level["measures"].get(cell)
            if measure and measure["latency_ms"] and not measure["failed"]:
                yield level["sessions"], cell, measure
