"""Measures operations of one checkout's sandbox, as JSON lines on request; started by `benchmarks.sandbox_cost`.

A request is the name of an image; the answer has, by operation, milliseconds of CPU in the container. An operation is
over when no process of the container can run any more: what it leaves to be done in the background counts too.
"""

from __future__ import annotations

import asyncio
import io
import json
import sys
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.sandbox_bench import footprint
from benchmarks.sandbox_bench.workloads import sample_image
from codedance_verl.sandbox.config import MIB, SandboxConfig
from codedance_verl.sandbox.node import SandboxNode

SIDES = {"small": 112, "large": 1024}
CELLS = {
    "first call": "x = 1 + 1; print(x)",
    "later call": "x = 1 + 1; print(x)",
    "crop": "input_image.crop((20, 0, 100, 80)).resize((256, 256))",
    "failed cell": "y = 3\nraise ValueError('no')",
}
_IDLE_SESSIONS = 16
_CALLERS, _LOOP_SECONDS = 64, 4.0
_LOOKS, _LOOK_SECONDS, _LONGEST_SETTLE = 3, 0.004, 20.0


def image(name: str, variant: int = 0) -> bytes:
    """Encodes the photograph of the benchmarks at a size and in a format: `large jpeg`; variants differ in pixels."""
    side, form = name.split()
    with Image.open(io.BytesIO(sample_image())) as whole:
        resized = whole.convert("RGB").resize((SIDES[side], SIDES[side]))
    resized.paste((37 * variant % 256, variant % 256, 0), (0, 0, 16, 16))
    out = io.BytesIO()
    resized.save(out, form, **({"quality": 92} if form == "jpeg" else {}))
    return out.getvalue()


class Container:
    """Container of a node with one, by its init process."""

    def __init__(self, node: SandboxNode) -> None:
        (name,) = node.stats()["interpreters"]
        self.pid = min(footprint.processes_naming((name,)))
        (group,) = footprint.cpu_seconds([self.pid])
        self._processes = Path(group).parent / "cgroup.procs"

    def cpu_ms(self) -> float:
        return sum(footprint.cpu_seconds([self.pid]).values()) * 1e3

    def memory_bytes(self) -> int:
        return footprint.memory_bytes(self._pids())

    async def settle(self) -> None:
        """Waits until no process can run, or is being taken down, several looks in a row."""
        began, calm = time.monotonic(), 0
        while calm < _LOOKS and time.monotonic() - began < _LONGEST_SETTLE:
            await asyncio.sleep(_LOOK_SECONDS)
            calm = 0 if self._is_busy() else calm + 1

    def _pids(self) -> list[int]:
        return [int(pid) for pid in self._processes.read_text(encoding="ascii").split()]

    def _is_busy(self) -> bool:
        for pid in self._pids():
            try:
                stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
            except OSError:
                continue
            if stat.rpartition(")")[2].split()[0] in "RDZX":
                return True
        return False


async def cost_ms(container: Container, work: Awaitable[Any]) -> tuple[Any, float]:
    """Returns the result of an operation, and the CPU time it took in the container."""
    await container.settle()
    before = container.cpu_ms()
    result = await work
    await container.settle()
    return result, container.cpu_ms() - before


async def single(node: SandboxNode, container: Container, name: str, number: int) -> dict[str, float]:
    """Measures each operation once, with an image no session has, and one that another session of its group has."""
    fresh, shared = image(name, number), image(name)
    costs = {}
    leader = await node.open([shared])
    await node.run(leader, "0")
    session, costs["open, new image"] = await cost_ms(container, node.open([fresh]))
    await node.close(session)
    session, costs["open"] = await cost_ms(container, node.open([shared]))
    for operation, code in CELLS.items():
        _, costs[operation] = await cost_ms(container, node.run(session, code))
    _, costs["close"] = await cost_ms(container, node.close(session))
    await node.close(leader)
    return costs


async def idle_mib(node: SandboxNode, container: Container, name: str) -> float:
    """Measures the memory of an idle session that has answered a call."""
    shared = image(name)
    await container.settle()
    before = container.memory_bytes()
    sessions = [await node.open([shared]) for _ in range(_IDLE_SESSIONS)]
    for session in sessions:
        await node.run(session, CELLS["later call"])
    await container.settle()
    held = container.memory_bytes() - before
    await asyncio.gather(*map(node.close, sessions))
    return held / MIB / _IDLE_SESSIONS


async def loop(node: SandboxNode, container: Container, name: str) -> dict[str, float]:
    """Has many callers open, call and close for some seconds; groups of eight share an image."""
    images = [image(name, group) for group in range(_CALLERS // 8)]
    await container.settle()
    before, host, began = container.cpu_ms(), time.process_time(), time.monotonic()
    done = 0

    async def call(number: int) -> None:
        nonlocal done
        while time.monotonic() - began < _LOOP_SECONDS:
            session = await node.open([images[number // 8]])
            await node.run(session, CELLS["first call"])
            await node.close(session)
            done += 1

    await asyncio.gather(*(call(number) for number in range(_CALLERS)))
    seconds, host = time.monotonic() - began, time.process_time() - host
    await container.settle()
    cpu = (container.cpu_ms() - before) / done
    return {"sessions per s": done / seconds, "CPU per session": cpu, "host CPU per session": host * 1e3 / done}


async def serve() -> None:
    node = SandboxNode(SandboxConfig(backend="docker", containers=1, standby_containers=0))
    await node.start()
    try:
        container = Container(node)
        print(json.dumps({"ready": True}), flush=True)
        for line in iter(sys.stdin.readline, ""):
            what, name, number = json.loads(line)
            if what == "single":
                answer = await single(node, container, name, number)
            elif what == "idle":
                answer = {"idle session": await idle_mib(node, container, name)}
            else:
                answer = await loop(node, container, name)
            print(json.dumps(answer), flush=True)
    finally:
        await node.shutdown()


if __name__ == "__main__":
    asyncio.run(serve())
