"""Metrics of a node: sizes as they are, counts by what was added."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from codedance_verl.metrics.emit import Recorder, for_trackers
from codedance_verl.sandbox.config import SandboxConfig
from codedance_verl.sandbox.node import SandboxNode
from codedance_verl.sandbox.telemetry import NodeTelemetry, record_call
from codedance_verl.types import Execution, ExecutionStatus

pytestmark = pytest.mark.usefixtures("recorder")


def _stats(**counts: Any) -> dict[str, Any]:
    """Returns the stats of a node that has not been started, with these counts."""
    return {**SandboxNode(SandboxConfig(containers=2, sessions_per_container=8)).stats(), **counts}


def test_counts_are_told_by_what_was_added(recorder: Recorder) -> None:
    telemetry = NodeTelemetry(SandboxNode(SandboxConfig()))
    telemetry.record(_stats(opened=5, restarts=1))
    first = for_trackers([recorder.drain()])
    telemetry.record(_stats(opened=7, restarts=1))
    second = for_trackers([recorder.drain()])
    assert first["codedance/sandbox/sessions_opened_total"] == 5
    assert second["codedance/sandbox/sessions_opened_total"] == 2
    assert second["codedance/sandbox/restarts_total"] == 0
    assert second["codedance/sandbox/capacity"] == 16


def test_capacity_is_what_serves_and_spare_interpreters_are_told_as_such(recorder: Recorder) -> None:
    """Else the alert and the panels would compare sessions with places that nobody can have."""
    serving, standby = (
        _stats(interpreters={"a": 8, "b": 8}, standby_containers=1),
        _stats(interpreters={"c": 0}, standby_containers=0),
    )
    NodeTelemetry(SandboxNode(SandboxConfig())).record(serving)
    assert _sizes(recorder) == {"capacity": 16, "interpreters/serving": 2, "interpreters/standby": 1}
    NodeTelemetry(SandboxNode(SandboxConfig()), standby=True).record(standby)
    assert _sizes(recorder) == {"interpreters/standby": 1}


def test_who_waits_has_no_session_yet(recorder: Recorder) -> None:
    NodeTelemetry(SandboxNode(SandboxConfig())).record(_stats(sessions=19, waiting=3))
    told = for_trackers([recorder.drain()])
    assert told["codedance/sandbox/sessions"] == 16 and told["codedance/sandbox/waiting"] == 3


def test_orphans_of_a_machine_are_counted_once(recorder: Recorder) -> None:
    async def tell_for_a_moment(standby: bool) -> bool:
        telling = asyncio.create_task(NodeTelemetry(SandboxNode(SandboxConfig()), standby).forever())
        await asyncio.sleep(0.2)
        telling.cancel()
        return "codedance/sandbox/orphan_containers" in recorder.drain()

    assert asyncio.run(tell_for_a_moment(standby=False))
    assert not asyncio.run(tell_for_a_moment(standby=True))


def _sizes(recorder: Recorder) -> dict[str, float]:
    """Returns the metrics of capacity and interpreters."""
    told = for_trackers([recorder.drain()]).items()
    return {name.split("/", 2)[2]: value for name, value in told if "/capacity" in name or "/interpreters" in name}


def test_calls_are_told_by_status(recorder: Recorder) -> None:
    for status in (ExecutionStatus.OK, ExecutionStatus.OK, ExecutionStatus.KILLED):
        record_call(Execution(status, duration_s=0.5, queue_s=2.0))
    told = for_trackers([recorder.drain()])
    assert told["codedance/sandbox/calls_total/ok"] == 2 and told["codedance/sandbox/calls_total/killed"] == 1
    assert told["codedance/sandbox/call_seconds/ok"] == 0.5 and told["codedance/sandbox/queue_seconds"] == 2.0
