"""What a node actor tells of its interpreters: each call as it ends, everything else every few seconds."""

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


def tell_call(execution: Execution) -> None:
    """Tell of a cell that was run."""
    status = str(execution.status)
    emit.add(catalogue.SANDBOX_CALLS, status=status)
    emit.observe(catalogue.SANDBOX_CALL_SECONDS, execution.duration_s, status=status)
    emit.observe(catalogue.SANDBOX_QUEUE_SECONDS, execution.queue_s)


class NodeTelemetry:
    """Tells of a node; of its counts what was added since the last time.

    `standby`: it steps in where the node of the same machine dies. That one tells what can be used, and of the machine.
    """

    def __init__(self, node: SandboxNode, standby: bool = False) -> None:
        self._node = node
        self._standby = standby
        self._told: dict[str, int] = dict.fromkeys(_GROWING, 0)
        self._looked_for_orphans = float("-inf")

    async def forever(self) -> None:
        """Tell every few seconds until cancelled."""
        for status in ExecutionStatus:
            emit.add(catalogue.SANDBOX_CALLS, 0, status=str(status))
        while True:
            self.tell(self._node.stats())
            if not self._standby and time.monotonic() - self._looked_for_orphans > ORPHANS_SECONDS:
                self._looked_for_orphans = time.monotonic()
                await self._tell_orphans()
            await asyncio.sleep(SAMPLE_SECONDS)

    def tell(self, stats: Mapping[str, Any]) -> None:
        """Tell what `SandboxNode.stats` says."""
        emit.set_gauge(
            catalogue.SANDBOX_SESSIONS, max(stats["sessions"] - stats["waiting"], 0)
        )  # who waits is among them
        emit.set_gauge(catalogue.SANDBOX_WAITING, stats["waiting"])
        emit.set_gauge(catalogue.SANDBOX_MEMORY, stats["memory_bytes"])
        if self._standby:
            emit.set_gauge(catalogue.SANDBOX_INTERPRETERS, len(stats["interpreters"]) + stats["spares"], role="spare")
        else:
            emit.set_gauge(catalogue.SANDBOX_CAPACITY, stats["capacity"])
            emit.set_gauge(catalogue.SANDBOX_INTERPRETERS, len(stats["interpreters"]), role="serving")
            emit.set_gauge(catalogue.SANDBOX_INTERPRETERS, stats["spares"], role="spare")
        for name, metric in _GROWING.items():
            emit.add(metric, stats[name] - self._told[name])
            self._told[name] = stats[name]

    async def _tell_orphans(self) -> None:
        try:
            emit.set_gauge(catalogue.SANDBOX_ORPHANS, await asyncio.to_thread(self._node.count_orphans))
        except Exception as error:  # an engine that does not answer is noticed by those who need it
            _logger.warning("sandbox: orphans could not be counted: %s", error)
