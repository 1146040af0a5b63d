"""Size of the sandbox image, time until a container is ready, and what opening, calls and idle sessions cost.

Run with `python -m benchmarks.sandbox_start [--starts N] [--sessions N]`; prints one JSON object. Needs Docker.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Sequence
from itertools import pairwise

from benchmarks.sandbox_bench import footprint
from benchmarks.sandbox_bench.workloads import sample_image
from codedance_verl.sandbox.config import MIB, SandboxConfig
from codedance_verl.sandbox.docker import engine, image
from codedance_verl.sandbox.node import SandboxNode
from codedance_verl.sandbox.pool import SandboxPool

_CALLS = 40
_TRIVIAL = "x = 1 + 1; print(x)"
_SETTLE_SECONDS = 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--starts", type=int, default=7, help="containers that are started, one after another")
    parser.add_argument("--sessions", type=int, default=16, help="idle sessions whose memory is measured")
    given = parser.parse_args()
    config = SandboxConfig(backend="docker", containers=1, standby_containers=0)
    print(json.dumps({"image_mb": _image_mb(), **asyncio.run(_measure(config, given.starts, given.sessions))}))


def _image_mb() -> float:
    """Size of the image of this checkout, in MB (10**6 bytes), as `docker images` gives it."""
    client = engine.ensure_engine(may_start=False)
    size: int = client.images.get(image.image_tag()).attrs["Size"]
    return round(size / 1e6, 1)


async def _measure(config: SandboxConfig, starts: int, sessions: int) -> dict[str, float]:
    started_s = []
    for _ in range(starts):
        node = SandboxNode(config)
        began = time.perf_counter()
        await node.start()
        started_s.append(time.perf_counter() - began)
        await node.shutdown()
    node = SandboxNode(config)
    await node.start()
    try:
        figures = await _sessions(node, sessions)
    finally:
        await node.shutdown()
    return {"start_s": round(statistics.median(started_s), 3), **figures}


async def _sessions(node: SandboxNode, sessions: int) -> dict[str, float]:
    """Medians of opening, first call, later calls and closing in ms; memory of container and idle session in MiB."""
    pool = SandboxPool([node])
    names = tuple(node.stats()["interpreters"])
    data = sample_image()
    costs: dict[str, list[float]] = {"open": [], "first_call": [], "call": [], "close": []}
    for _ in range(_CALLS):
        at = [time.perf_counter()]
        async with pool.session(data) as session:
            at.append(time.perf_counter())
            for _call in range(2):
                await session.run(_TRIVIAL)
                at.append(time.perf_counter())
        at.append(time.perf_counter())
        for name, (start, end) in zip(costs, pairwise(at), strict=True):
            costs[name].append(end - start)
    base = await _memory_mib(names)
    held = [pool.session(data) for _ in range(sessions)]
    for each in held:
        await (await each.__aenter__()).run(_TRIVIAL)
    loaded = await _memory_mib(names)
    for each in held:
        await each.__aexit__(None, None, None)
    figures = {f"{name}_ms": round(statistics.median(values) * 1e3, 2) for name, values in costs.items()}
    return {**figures, "container_mib": round(base, 1), "session_mib": round((loaded - base) / sessions, 2)}


async def _memory_mib(names: Sequence[str]) -> float:
    await asyncio.sleep(_SETTLE_SECONDS)
    return footprint.memory_bytes(footprint.processes_naming(tuple(names))) / MIB


if __name__ == "__main__":
    main()
