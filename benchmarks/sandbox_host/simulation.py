"""SIMULATION of a host with many cores: node actors and cells as queues, with service times that were measured.

A closed network, exact mean value analysis (Reiser and Lavenberg 1980): `callers` sessions, each with one call in
flight, pass through one of the node actors (a queue with one server, the event loop), then through the cores that are
left for cells (a queue with many servers, by Seidmann's approximation), and begin again. Nothing of it is measured on
such a host.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

CELL_MS = {"trivial": 3.5, "crop": 9.0}
"""CPU time of a cell in its container."""


@dataclass(frozen=True)
class Throughput:
    """Calls a second of a host, and what bounds them."""

    cores: int
    actors: int
    calls_per_s: float
    actor_bound: float
    core_bound: float


def simulated(cores: int, actors: int, actor_ms: float, client_ms: float, cell_ms: float) -> Throughput:
    """Returns the throughput of a host whose `cores` serve actors, clients and cells."""
    callers = 16 * cores
    # Cells and clients share all cores with the actors, which are taken off as far as they are busy.
    work_ms = cell_ms + client_ms
    core_bound = 1e3 * cores / (actor_ms + work_ms)
    actor_bound = 1e3 * actors / actor_ms
    for_cells = max(cores - actors * min(1.0, core_bound / actor_bound), 1.0)
    rate = _mean_value([actor_ms / actors] * actors, work_ms, for_cells, callers)
    return Throughput(cores, actors, round(1e3 * rate, 1), round(actor_bound, 1), round(core_bound, 1))


def _mean_value(demands: Sequence[float], work_ms: float, servers: float, callers: int) -> float:
    """Returns calls a millisecond. `demands` are those of the single servers, per call of the network."""
    shared, delay = work_ms / servers, work_ms * (servers - 1) / servers  # Seidmann: a queue and a delay
    stations = [*demands, shared]
    queues = [0.0] * len(stations)
    rate = 0.0
    for number in range(1, callers + 1):
        residences = [demand * (1 + queue) for demand, queue in zip(stations, queues, strict=True)]
        rate = number / (sum(residences) + delay)
        queues = [rate * residence for residence in residences]
    return rate
