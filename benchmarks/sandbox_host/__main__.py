"""Command `python -m benchmarks.sandbox_host`: the host side of the sandbox, through Ray and over its socket."""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray

from benchmarks.sandbox_bench.report import machine_facts
from benchmarks.sandbox_host.saturation import WORKLOADS, Load, measured
from benchmarks.sandbox_host.simulation import CELL_MS, simulated

PATHS = {"ray": False, "socket": True}
CORES = (2, 4, 8, 16, 32, 64)
CORES_AN_ACTOR = (16, 64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--actors", default="1,2,4", help="numbers of node actors")
    parser.add_argument("--paths", default=",".join(PATHS), help="ways of a call, in turn")
    parser.add_argument("--workloads", default=",".join(WORKLOADS))
    parser.add_argument("--seconds", type=float, default=5.0, help="duration of one measurement")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, whose median is taken")
    parser.add_argument("--output", type=Path, help="a file for the JSON")
    given = parser.parse_args()
    logging.getLogger("codedance_verl").setLevel(logging.ERROR)
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    load = Load(seconds=given.seconds)
    rounds = []
    for _ in range(given.rounds):
        found: dict[str, Any] = {}
        rounds.append(found)
        for actors in map(int, given.actors.split(",")):
            for path in given.paths.split(","):
                found[f"{path}, {actors} actors"] = measured(actors, PATHS[path], given.workloads.split(","), load)
                print(path, actors, found[f"{path}, {actors} actors"], file=sys.stderr, flush=True)
    figures = _medians(rounds)
    document = {"machine": machine_facts(), "load": asdict(load), "measured": figures, "simulated": _scaling(figures)}
    text = json.dumps(document, indent=1)
    if given.output is not None:
        given.output.parent.mkdir(parents=True, exist_ok=True)
        given.output.write_text(text + "\n")
    print(text)
    ray.shutdown()


def _medians(rounds: Sequence[Any]) -> Any:
    """Returns each figure's median over the rounds."""
    if not isinstance(rounds[0], dict):
        return statistics.median(rounds)
    return {key: _medians([each[key] for each in rounds]) for key in rounds[0]}


def _scaling(figures: dict[str, Any]) -> dict[str, Any]:
    """Simulated throughput of larger hosts, by the service times of one actor."""
    found: dict[str, Any] = {
        "what": "a simulation (simulation.py) by the measured service times; no such host was used"
    }
    for name, workloads in figures.items():
        if not name.endswith(", 1 actors"):
            continue
        for workload in set(workloads) & set(CELL_MS):
            actor_ms, client_ms = workloads[workload]["actor_ms"], workloads[workload]["client_ms"]
            found[f"{name.partition(',')[0]}, {workload}"] = [
                asdict(simulated(cores, max(cores // share, 1), actor_ms, client_ms, CELL_MS[workload]))
                for cores in CORES
                for share in CORES_AN_ACTOR
            ]
    return found


if __name__ == "__main__":
    main()
