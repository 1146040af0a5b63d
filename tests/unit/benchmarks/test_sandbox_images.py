"""The measurement of large images: what it counts, with sessions that are processes and hold small ones."""

from __future__ import annotations

import asyncio

from benchmarks.sandbox_images import Case, measure
from codedance_verl.sandbox.config import SandboxConfig

CONFIG = SandboxConfig(backend="process", open_timeout_s=120, queue_timeout_s=120)


def test_sessions_that_open_and_work_are_counted_beside_the_prediction() -> None:
    found = asyncio.run(measure(Case(2, 60, 40), CONFIG))
    assert (found["worked"], found["failed"]) == (2, {})
    assert found["memory_predicted_mib"] > found["scratch_predicted_mib"] > 0
    assert (found["memory_limit_mib"], found["scratch_limit_mib"]) == (4096, 512)


def test_sessions_without_room_are_named() -> None:
    """An image of 100 MB does not fit in a session of 64 MiB, and is not blamed for it."""
    found = asyncio.run(measure(Case(1, 5000, 5000), CONFIG.replace(session_memory_mb=64)))
    assert (found["worked"], found["failed"]) == (0, {"SandboxFull": 1})
