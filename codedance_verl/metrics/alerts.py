"""Alert rules for Prometheus: faults of a run that somebody should look at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from codedance_verl.metrics import catalogue as c

STALLED_STEPS = 3
"""Times the length of the last step after which a step is stalled."""

STALLED_SECONDS = 600
"""Least length of a stalled step: short ones vary by more than their own length."""

FIRST_STEP_SECONDS = 1800
"""Length after which the first step is stalled: it has no other to compare with."""

KILLED_SHARE = 0.05
"""Share of calls that may be killed, 0 to 1."""


@dataclass(frozen=True)
class Alert:
    """A rule. It fires when `query` has had a result for the time `lasting`; `cure` is what to do."""

    name: str
    query: str
    lasting: str
    severity: str
    what: str
    cure: str


# `or` takes its right side where the left has no series: before the first step has ended.
_LIMIT = (
    f"(clamp_min({STALLED_STEPS} * max by (run) ({c.TRAINING_STEP_SECONDS.exposed}), {STALLED_SECONDS}) "
    f"or 0 * max by (run) ({c.TRAINING_STARTED.exposed}) + {FIRST_STEP_SECONDS})"
)
_CALLS = f"sum by (run) (increase({c.SANDBOX_CALLS.exposed}[10m]))"
_KILLED = f'sum by (run) (increase({c.SANDBOX_CALLS.exposed}{{status="killed"}}[10m]))'

ALERTS = (
    Alert(
        "CodeDanceStepStalled",
        f"time() - max by (run) ({c.TRAINING_STARTED.exposed}) > {_LIMIT} "
        # A validation has no length to compare with and is left out.
        f"unless on (run) max by (run) ({c.TRAINING_VALIDATING.exposed}) > 0",
        "1m",
        "critical",
        "The step of run {{ $labels.run }} has lasted {{ $value | humanizeDuration }}, "
        f"more than {STALLED_STEPS} times as long as the last one.",
        "Look at the panels of trajectories in flight and of waiting callers. `step_limit_s` ends such a run "
        "and writes `stalled.txt`, which names each waiting trajectory and what it waits for.",
    ),
    Alert(
        "CodeDanceToolCollapse",
        f"max by (run, sign) ({c.MONITOR_WINDOWS.exposed}) >= 2",
        "0m",
        "warning",
        "{{ $labels.sign }} of run {{ $labels.run }} is out of its bounds for {{ $value }} windows in a row.",
        "Look at rollouts of the last steps and at the tool term of the reward; `monitors.stop_after` ends such a run. "
        "The bounds are in `conf/monitors.yaml`.",
    ),
    Alert(
        "CodeDanceKillRate",
        f"{_KILLED} / {_CALLS} > {KILLED_SHARE}",
        "2m",
        "warning",
        "{{ $value | humanizePercentage }} of the calls of run {{ $labels.run }} were killed in the last ten minutes.",
        "Sessions are lost and their trajectories masked: look at the log of the sandbox node for deaths of "
        "interpreters, at the memory of the machine, and at `sandbox.memory_mb`.",
    ),
    Alert(
        "CodeDancePoolStarved",
        f"sum by (run) ({c.SANDBOX_WAITING.exposed}) > 0",  # nobody waits at a node that has a free place
        "5m",
        "warning",
        "{{ $value }} trajectories of run {{ $labels.run }} wait for a sandbox session, as some have for minutes.",
        "Raise `sandbox.containers` or `sandbox.sessions_per_container`, add nodes for interpreters, or lower "
        "`environment.max_in_flight`.",
    ),
    Alert(
        "CodeDanceOrphanContainers",
        f"max by (NodeAddress) ({c.SANDBOX_ORPHANS.exposed}) > 0",
        "5m",
        "warning",
        "{{ $value }} containers on {{ $labels.NodeAddress }} have a dead owner.",
        "`codedance sandbox clean` on that machine removes them; so does the next start of a run there.",
    ),
)


def rules(lasting: str | None = None) -> dict[str, Any]:
    """Returns the content of Prometheus's rule file; `lasting` overrides the time for which each rule must hold."""
    return {
        "groups": [
            {
                "name": "codedance",
                "rules": [
                    {
                        "alert": alert.name,
                        "expr": alert.query,
                        "for": lasting or alert.lasting,
                        "labels": {"severity": alert.severity},
                        "annotations": {"summary": alert.what, "description": alert.cure},
                    }
                    for alert in ALERTS
                ],
            }
        ]
    }
