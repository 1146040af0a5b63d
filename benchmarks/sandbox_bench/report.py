"""Results as JSON and as a table, and the facts about the machine without which they say nothing."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
from rich import box
from rich.table import Table

from benchmarks.sandbox_bench.contender import Contender
from benchmarks.sandbox_bench.loop import Plan
from benchmarks.sandbox_bench.results import Crowd, Level
from benchmarks.sandbox_bench.workloads import WORKLOADS
from codedance_verl.sandbox.docker import engine

SCHEMA = 1
GIB = 1 << 30


def machine_facts() -> dict[str, Any]:
    """Cores, memory, kernel, engine, and how busy the machine was before anything was measured."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "cpu": _cpu_model(),
        "memory_gib": round(psutil.virtual_memory().total / GIB, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "engine": _engine_facts(),
        "load_before": [round(value, 2) for value in os.getloadavg()],
    }


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Versions of those packages that are installed."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def record(
    contender: Contender, levels: Sequence[Level], crowd: Crowd | None = None, unavailable: str = ""
) -> dict[str, Any]:
    """Findings about one contender; `unavailable` says why nothing was."""
    return {
        "name": contender.name,
        **dataclasses.asdict(contender.traits),
        "unavailable": unavailable,
        "levels": [dataclasses.asdict(level) for level in levels],
        "crowd": None if crowd is None else dataclasses.asdict(crowd),
    }


def document(
    machine: dict[str, Any], plan: Plan, levels: Sequence[int], contenders: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """The whole of a run, to be written as JSON."""
    return {
        "schema": SCHEMA,
        "machine": machine,
        "parameters": {
            **dataclasses.asdict(plan),
            "levels": list(levels),
            "cells": {workload.name: workload.cell for workload in WORKLOADS},
        },
        "contenders": list(contenders),
    }


def write(path: Path, found: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def table(name: str, levels: Sequence[Level]) -> Table:
    """One row a measure, one section a level."""
    title = f"{name}: latency in ms, CPU in ms a call, memory of an idle session in MiB"
    drawn = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1))
    drawn.add_column("sessions", justify="right")
    drawn.add_column("measure", min_width=10)
    for column, width in (("p50", 6), ("p95", 6), ("p99", 6), ("calls/s", 7), ("calls", 5), ("CPU", 5), ("MiB", 5)):
        drawn.add_column(column, justify="right", min_width=width)
    for level in levels:
        drawn.add_section()
        memory = "" if level.memory_mib is None else f"{level.memory_mib:.1f}"
        for measured, measure in level.measures.items():
            latency = measure.latency_ms
            figures = [f"{value:.1f}" for value in (latency.p50, latency.p95, latency.p99)] if latency else ["-"] * 3
            count = str(latency.count if latency else 0)
            cpu = "" if measure.serving_cpu_ms is None else f"{measure.serving_cpu_ms + measure.client_cpu_ms:.1f}"
            first = measured == next(iter(level.measures))
            sessions, weight = (str(level.sessions), memory) if first else ("", "")
            drawn.add_row(sessions, measured, *figures, f"{measure.calls_per_s:.1f}", count, cpu, weight)
    return drawn


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def _engine_facts() -> dict[str, str] | None:
    client = engine.connect()
    if client is None:
        return None
    try:
        info = client.info()
        names = {
            "version": "ServerVersion",
            "storage": "Driver",
            "cgroups": "CgroupVersion",
            "runtime": "DefaultRuntime",
        }
        return {name: str(info.get(key, "")) for name, key in names.items()}
    finally:
        client.close()
