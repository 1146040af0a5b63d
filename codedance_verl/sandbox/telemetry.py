"""Metrics of a node actor: each call as it ends, everything else every few seconds."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Any

from codedance_verl.metrics import catalogue, emit
from codedance_verl.sandbox.node import SandboxNode
from codedance_verl.types import Execution, ExecutionStatus

SAMPLE_SECONDS = 5.0
ORPHANS_SECONDS = 60.0

_GROWING = {
    "opened": catalogue.SANDBOX_OPENED,
    "refused": catalogue.SANDBOX_REFUSED,
    "leases_expired": catalogue.SANDBOX_LEASES,
    "restarts": catalogue.SANDBOX_RESTARTS,
    "recycled": catalogue.SANDBOX_RECYCLED,
}
_logger = logging.getLogger(__name__)


def record_call(execution: Execution) -> None:
    """Emits the metrics of a cell that was run."""
    status = str(execution.status)
    emit.add(catalogue.SANDBOX_CALLS, status=status)
    emit.observe(catalogue.SANDBOX_CALL_SECONDS, execution.duration_s, status=status)
    emit.observe(catalogue.SANDBOX_QUEUE_SECONDS, execution.queue_s)


class NodeTelemetry:
    """Emitter of a node's metrics; of its counts, the growth since the last time.

    `standby`: the node stands in for the main one of the same machine, which alone reports capacity and orphans.
    """

    def __init__(self, node: SandboxNode, standby: bool = False) -> None:
        self._node = node
        self._standby = standby
        self._recorded: dict[str, int] = dict.fromkeys(_GROWING, 0)
        self._orphans_counted_at = float("-inf")

    async def forever(self) -> None:
        """Emits every few seconds until cancelled."""
        for status in ExecutionStatus:
            emit.add(catalogue.SANDBOX_CALLS, 0, status=str(status))  # a rate needs the series before its first growth
        while True:
            self.record(self._node.stats())
            if not self._standby and time.monotonic() - self._orphans_counted_at > ORPHANS_SECONDS:
                self._orphans_counted_at = time.monotonic()
                await self._record_orphans()
            await asyncio.sleep(SAMPLE_SECONDS)

    def record(self, stats: Mapping[str, Any]) -> None:
        """Emits what `SandboxNode.stats` returned."""
        placed = max(stats["sessions"] - stats["waiting"], 0)  # callers that wait are among the sessions
        emit.set_gauge(catalogue.SANDBOX_SESSIONS, placed)
        emit.set_gauge(catalogue.SANDBOX_WAITING, stats["waiting"])
        emit.set_gauge(catalogue.SANDBOX_MEMORY, stats["memory_bytes"])
        if self._standby:
            started = len(stats["interpreters"]) + stats["standby_containers"]
            emit.set_gauge(catalogue.SANDBOX_INTERPRETERS, started, role="standby")
        else:
            emit.set_gauge(catalogue.SANDBOX_CAPACITY, stats["capacity"])
            emit.set_gauge(catalogue.SANDBOX_INTERPRETERS, len(stats["interpreters"]), role="serving")
            emit.set_gauge(catalogue.SANDBOX_INTERPRETERS, stats["standby_containers"], role="standby")
        for name, metric in _GROWING.items():
            emit.add(metric, stats[name] - self._recorded[name])
            self._recorded[name] = stats[name]

    async def _record_orphans(self) -> None:
        try:
            emit.set_gauge(catalogue.SANDBOX_ORPHANS, await asyncio.to_thread(self._node.count_orphans))
        except Exception as error:  # an engine that does not answer is noticed by those who need it
            _logger.warning("sandbox: orphans could not be counted: %s", error)
