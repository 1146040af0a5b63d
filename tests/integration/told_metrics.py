"""Program of test_prometheus.py: emits all metrics in a real Ray until the file `<folder>/end` exists.

All is well at first; from the file `<folder>/fault` on everything is wrong that an alert watches for. A gauge is told
once, and once more with the fault; counters and histograms over and over. The address of the metrics is written to
`<folder>/target`.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any
from unittest import mock

os.environ |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "CODEDANCE_RUN": "demo"}

import ray

from codedance_verl.environment.loop import Timing
from codedance_verl.environment.sandbox_client import EarlyOpening
from codedance_verl.metrics import catalogue, emit
from codedance_verl.reward.monitors import Finding, Rates
from codedance_verl.rollout.telemetry import RolloutStats, record_group, record_window
from codedance_verl.sandbox.telemetry import NodeTelemetry, record_call
from codedance_verl.trainer.telemetry import PHASES, SAME, STALENESS, StepTelemetry
from codedance_verl.types import Execution, ExecutionStatus, FinishReason, Grade, RewardTerms, Trajectory, Turn, Verdict

MOST_SECONDS = 240.0
REPORT_MILLISECONDS = 5000
"""Half of Ray's default, for the test's sake. It forgets a gauge after twice that."""
HEALTHY = Rates(0.6, 0.1, 0.0, 0.0, 0.0, 0.0, 0.0)
RATES = Rates(0.001, 0.1, 0.0, 0.0, 0.0, 0.0, 0.0)
FINDING = Finding("tool_rate", 0.001, 0.01, 3)
STEP = dict.fromkeys([*SAME, *PHASES, *STALENESS], 5.0)


class Node:
    """Stands for a node with orphans: these cannot be made without an engine."""

    def __init__(self) -> None:
        self.orphans = 0

    def count_orphans(self) -> int:
        return self.orphans


def stats(count: int, fault: bool) -> dict[str, Any]:
    growing = dict.fromkeys(("opened", "refused", "leases_expired", "restarts", "recycled"), count)
    sizes = {
        "sessions": 11 if fault else 2,
        "capacity": 8,
        "waiting": 3 * fault,
        "memory_bytes": 1 << 20,
        "standby_containers": 1,
    }
    return {**growing, **sizes, "interpreters": {"a": 2}}


def member(correct: bool) -> RolloutStats:
    turns = (Turn("x", 0, 3, "1", Execution(ExecutionStatus.OK)), Turn("y", 5, 9))
    trajectory = Trajectory("r", "s", "q", "a", turns, FinishReason.ANSWER, "a")
    grade = Grade(Verdict.CORRECT if correct else Verdict.WRONG, "exact")
    terms = RewardTerms(float(correct), 1.0, 0.5, 1.0, 1.2, (0.1, 0.2))
    return RolloutStats(trajectory, grade, terms, Timing(3.0, 1.0, 0.5, 0.2, 5.0), 1, 7, 2, EarlyOpening.USED)


def tell_judge() -> None:
    for source in ("cache", "server", "none"):
        emit.add(catalogue.JUDGE_ANSWERS, source=source)
    emit.observe(catalogue.JUDGE_SECONDS, 0.7)
    emit.add(catalogue.JUDGE_REQUESTS)
    emit.add(catalogue.JUDGE_FAILURES)
    emit.add(catalogue.JUDGE_TOKENS, 100, direction="read")
    emit.add(catalogue.JUDGE_TOKENS, 10, direction="written")
    emit.add(catalogue.JUDGE_COST, 0.01)


def tell_redrawn_calls() -> None:
    for result in ("right", "wrong", "masked", "replay_differs"):
        emit.add(catalogue.ROLLOUT_BRANCHES, result=result)
    for result in ("recovered", "not_recovered", "none"):
        emit.add(catalogue.ROLLOUT_REDRAWS, result=result)


def tell(telemetry: NodeTelemetry, steps: StepTelemetry, count: int, fault: bool) -> None:
    """Emits all metrics, gauges too."""
    telemetry.record(stats(count, fault))
    emit.set_gauge(catalogue.SANDBOX_ORPHANS, 2.0 * fault)
    emit.set_gauge(catalogue.ROLLOUTS_IN_FLIGHT, 4.0)
    emit.add(catalogue.TRAINING_MASKED, float(fault))
    # the first sample of a series is no growth of it: a status is there before its first fault
    statuses = [ExecutionStatus.OK] * 60 + [ExecutionStatus.KILLED] * (60 if fault else count % 2)
    for status in statuses:
        record_call(Execution(status, duration_s=0.3, queue_s=0.01))
    for split in ("train", "val"):
        record_group([member(True), member(False)], split, 0.1)
        emit.add(catalogue.ROLLOUT_UNWRITTEN, fault, split=split)
    record_window(RATES if fault else HEALTHY, [FINDING] if fault else [])
    tell_judge()
    tell_redrawn_calls()
    steps.begin()
    steps.end(count, 10_000, STEP, 64)
    if fault:
        emit.set_gauge(catalogue.TRAINING_STARTED, time.time() - 7200)


def main(folder: Path) -> None:
    ray.init(
        address="local",
        num_cpus=1,
        include_dashboard=False,
        log_to_driver=False,
        _temp_dir=str(folder / "ray"),
        _system_config={"metrics_report_interval_ms": REPORT_MILLISECONDS},
    )
    (node,) = ray.nodes()
    partial = folder / "target.partial"
    partial.write_text(f"{node['NodeManagerAddress']}:{node['MetricsExportPort']}")
    partial.rename(folder / "target")
    telemetry, steps = NodeTelemetry(Node()), StepTelemetry()  # type: ignore[arg-type]
    deadline, count, had_fault = time.monotonic() + MOST_SECONDS, 0, None
    while not (folder / "end").exists() and time.monotonic() < deadline:
        fault, count = (folder / "fault").exists(), count + 1
        with mock.patch.object(emit, "set_gauge") if fault is had_fault else contextlib.nullcontext():
            tell(telemetry, steps, count, fault)
        had_fault = fault
        time.sleep(0.5)
    (folder / "trackers").write_text(json.dumps(emit.for_trackers([emit.drain()])))
    ray.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
