"""Memory test: one container with as many sessions with large photographs as it is sized for.

Run with `python -m benchmarks.sandbox_images`; prints one JSON object. Needs Docker. Every session opens with its
photograph, keeps it as an array, reads it from its file, computes with a float copy and shows a crop.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import io
import json
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import docker
from docker.errors import DockerException
from PIL import Image

from benchmarks.sandbox_bench.workloads import sample_image
from codedance_verl.sandbox.config import MIB, SandboxConfig
from codedance_verl.sandbox.docker.sizing import ImageLoad, predicted, sized
from codedance_verl.sandbox.errors import SandboxError
from codedance_verl.sandbox.node import SandboxNode
from codedance_verl.sandbox.pool import SandboxPool, SandboxSession

CELLS = (
    "import numpy as np\na = np.array(input_image)\nprint(a.shape)",
    "import cv2\nb = cv2.imread('input_image.png')\nprint(b.shape == a.shape, (b[:, :, ::-1] == a).all())\ndel b",
    "print(round(float(np.asarray(input_image, float).mean()), 1))",
    "input_image.crop((10, 10, 40, 30))",
)
_SCRATCH = "import os\ns = os.statvfs('.')\nprint((s.f_blocks - s.f_bfree) * s.f_frsize)"
_GRAIN = 12
"""Standard deviation of the noise on the photograph, which a file packs as little as a camera's."""

_PAUSE_SECONDS = 0.5


@dataclass(frozen=True)
class Case:
    """So many sessions, each with a photograph of this size in pixels."""

    sessions: int
    width: int
    height: int


CASES = (Case(128, 2250, 1500), Case(6, 7680, 4320))


def photograph(case: Case) -> bytes:
    """A JPEG file."""
    size = (case.width, case.height)
    with Image.open(io.BytesIO(sample_image())) as opened:
        smooth = opened.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    grain = Image.effect_noise(size, _GRAIN).convert("RGB")
    buffer = io.BytesIO()
    Image.blend(smooth, grain, 0.2).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


async def measure(case: Case, config: SandboxConfig) -> dict[str, Any]:
    """Opens, work and hold all sessions at once; sizes in MiB, `predicted` beside what was used at most."""
    data, pixels = photograph(case), case.width * case.height
    load = ImageLoad(pixels, pixels, len(data), (case.width, case.height))
    config = sized(config.replace(containers=1, standby_containers=0, sessions_per_container=case.sessions), load)
    node = SandboxNode(config)
    await node.start()
    try:
        async with _memory_watched(list(node.stats()["interpreters"])) as memory:
            figures = await _sessions(SandboxPool([node]), case, data)
    finally:
        await node.shutdown()
    room = predicted(config, load)
    return {
        "sessions": case.sessions,
        "image": f"{case.width} x {case.height}",
        "image_file_mib": round(len(data) / MIB, 2),
        **figures,
        "memory_mib": round(max(memory, default=0) / MIB),
        "memory_predicted_mib": room.memory_mb,
        "memory_limit_mib": config.memory_mb,
        "scratch_predicted_mib": room.scratch_mb,
        "scratch_limit_mib": config.scratch_mb,
    }


async def _sessions(pool: SandboxPool, case: Case, data: bytes) -> dict[str, Any]:
    began = time.perf_counter()
    async with contextlib.AsyncExitStack() as held:
        opening = (held.enter_async_context(pool.session(data)) for _ in range(case.sessions))
        opened = await asyncio.gather(*opening, return_exceptions=True)
        opened_s = time.perf_counter() - began
        sessions = [session for session in opened if isinstance(session, SandboxSession)]
        ends = await asyncio.gather(*map(_work, sessions))
        worked_s = time.perf_counter() - began - opened_s
        worked = [session for session, end in zip(sessions, ends, strict=True) if not end]
        scratch = await worked[0].run(_SCRATCH) if worked else None
    refused = collections.Counter(type(error).__name__ for error in opened if isinstance(error, BaseException))
    refused += collections.Counter(end for end in ends if end)
    return {
        "worked": len(worked),
        "failed": dict(refused),
        "open_s": round(opened_s, 2),
        "work_s": round(worked_s, 2),
        "scratch_mib": round(int(scratch.stdout) / MIB) if scratch is not None else 0,
    }


async def _work(session: SandboxSession) -> str:
    """Runs the cells; returns what went wrong, empty for nothing."""
    for code in CELLS:
        try:
            execution = await session.run(code, timeout_s=600)
        except SandboxError as error:
            return type(error).__name__
        if execution.status != "ok" or "False" in execution.stdout:
            return execution.error.kind if execution.error is not None else execution.status
    return ""


@contextlib.asynccontextmanager
async def _memory_watched(names: Sequence[str]) -> AsyncIterator[list[int]]:
    """A list of what the containers of these names use, in bytes, that grows while the block runs."""
    seen = list[int]()

    async def watch() -> None:
        while True:
            with contextlib.suppress(DockerException, KeyError):
                seen.append(await asyncio.to_thread(_used_bytes, names))
            await asyncio.sleep(_PAUSE_SECONDS)

    watching = asyncio.create_task(watch())
    try:
        yield seen
        await asyncio.sleep(2 * _PAUSE_SECONDS)
    finally:
        watching.cancel()


def _used_bytes(names: Sequence[str]) -> int:
    """Memory that the limit counts, but for the cached pages of files that the kernel can drop."""
    with contextlib.closing(docker.from_env()) as client:
        found = [client.api.stats(name, stream=False, one_shot=True)["memory_stats"] for name in names]
    return sum(stats["usage"] - stats.get("stats", {}).get("inactive_file", 0) for stats in found)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--memory-mb", type=int, help="sandbox.memory_mb; by the images where it is left out")
    parser.add_argument("--scratch-mb", type=int, help="sandbox.scratch_mb; by the images where it is left out")
    given = parser.parse_args()
    config = SandboxConfig(
        backend="docker",
        memory_mb=given.memory_mb,
        scratch_mb=given.scratch_mb,
        open_timeout_s=300,
        queue_timeout_s=900,
        lease_ttl_s=3600,
    )
    print(json.dumps([asyncio.run(measure(case, config)) for case in CASES], indent=1))


if __name__ == "__main__":
    main()
