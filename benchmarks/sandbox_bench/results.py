"""Results of a benchmark, as records that turn into JSON with `dataclasses.asdict`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Distribution:
    """Latencies, in milliseconds."""

    count: int
    mean: float
    p50: float
    p95: float
    p99: float
    max: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Distribution | None:
        """Builds it from single latencies in seconds; None where there are none."""
        if not seconds:
            return None
        ms = np.asarray(seconds) * 1000
        p50, p95, p99 = (float(value) for value in np.percentile(ms, (50, 95, 99)))
        return cls(len(ms), float(ms.mean()), p50, p95, p99, float(ms.max()))


@dataclass(frozen=True)
class Measure:
    """One closed loop: `seconds` of wall time in all, latencies of the calls that were answered rightly.

    CPU time is per call, and says more than latency where other work shares the cores: `client_cpu_ms` of the measuring
    process (a pool without Ray lives in it), `serving_cpu_ms` of what runs the cells (None where what serves comes and
    goes), `machine_cpu_ms` of the whole machine, whatever else it did included. `cut`: ended with calls unanswered.
    """

    latency_ms: Distribution | None
    calls_per_s: float
    seconds: float
    client_cpu_ms: float
    serving_cpu_ms: float | None
    machine_cpu_ms: float
    failed: int = 0
    failure: str = ""
    cut: bool = False

    @property
    def sound(self) -> bool:
        """Every call was answered, and rightly."""
        return self.latency_ms is not None and not self.cut and not self.failed

    def __str__(self) -> str:
        latency = self.latency_ms
        if latency is None:
            return self.failure or "no call was answered in time"
        text = f"p50 {latency.p50:.1f} ms, p99 {latency.p99:.1f} ms, {self.calls_per_s:.1f}/s"
        return text + (f", {self.failed} failed" if self.failed else "") + (", cut" if self.cut else "")


@dataclass(frozen=True)
class Level:
    """All measures at one number of concurrent sessions.

    `base_mib` is what serves before any session is open, `memory_mib` what each idle session adds to it, None where it
    was not measured. `incomplete` says why measures are missing.
    """

    sessions: int
    start_s: float = 0.0
    base_mib: float = 0.0
    memory_mib: float | None = None
    measures: dict[str, Measure] = field(default_factory=dict)
    incomplete: str = ""


@dataclass(frozen=True)
class Crowd:
    """Many sessions alive at once, of which `answered` have run a cell; `again_ms`: a second one, all at once."""

    sessions: int
    answered: int
    open_seconds: float
    base_mib: float
    memory_mib: float
    again_ms: Distribution | None
    failure: str = ""
