"""What a node tells of itself: sizes as they are, counts by what was added."""

from __future__ import annotations

from typing import Any

import pytest

from codedance_verl.metrics.emit import Recorder, for_trackers
from codedance_verl.sandbox.config import SandboxConfig
from codedance_verl.sandbox.node import SandboxNode
from codedance_verl.sandbox.telemetry import NodeTelemetry, tell_call
from codedance_verl.types import Execution, ExecutionStatus

pytestmark = pytest.mark.usefixtures("recorder")


def _stats(**counts: int) -> dict[str, Any]:
    """Of a node that has not been started, with these counts."""
    return {**SandboxNode(SandboxConfig(containers=2, sessions_per_container=8)).stats(), **counts}


def test_counts_are_told_by_what_was_added(recorder: Recorder) -> None:
    telemetry = NodeTelemetry(SandboxNode(SandboxConfig()))
    telemetry.tell(_stats(opened=5, restarts=1))
    first = for_trackers([recorder.take()])
    telemetry.tell(_stats(opened=7, restarts=1))
    second = for_trackers([recorder.take()])
    assert first["codedance/sandbox/sessions_opened_total"] == 5
    assert second["codedance/sandbox/sessions_opened_total"] == 2
    assert second["codedance/sandbox/restarts_total"] == 0
    assert second["codedance/sandbox/capacity"] == 16


def test_calls_are_told_by_status(recorder: Recorder) -> None:
    for status in (ExecutionStatus.OK, ExecutionStatus.OK, ExecutionStatus.KILLED):
        tell_call(Execution(status, duration_s=0.5, queue_s=2.0))
    told = for_trackers([recorder.take()])
    assert told["codedance/sandbox/calls_total/ok"] == 2 and told["codedance/sandbox/calls_total/killed"] == 1
    assert told["codedance/sandbox/call_seconds/ok"] == 0.5 and told["codedance/sandbox/queue_seconds"] == 2.0
