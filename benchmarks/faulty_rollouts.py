"""Rollout workers whose sandbox fails on purpose: calls killed, sessions refused, the node actor restarted.

Chosen as `actor_rollout_ref.rollout.agent.agent_loop_manager_class=benchmarks.faulty_rollouts.FaultyManager`. What was
done is counted in `<run_dir>/faults.json`, to be held against what the run reports.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import ray

from codedance_verl.rollout.worker import CodeDanceAgentLoopManager, CodeDanceAgentLoopWorker
from codedance_verl.sandbox import ray_node
from codedance_verl.sandbox.config import SandboxConfig
from codedance_verl.sandbox.errors import SandboxUnavailable
from codedance_verl.sandbox.execution import lost
from codedance_verl.sandbox.pool import SandboxPool, SandboxSession
from codedance_verl.types import Execution, ExecutionStatus


@dataclass(frozen=True)
class FaultPlan:
    """Plan of faults, from the environment variables CODEDANCE_FAULTS_{KILLED,REFUSED,RESTART_AT}.

    Attributes:
        killed: share of the calls that are killed, 0 to 1.
        refused: share of the attempts to open a session that are refused, 0 to 1.
        restart_at: with this call, or the next that is not killed, the node actor is killed, once; 0: never.
    """

    killed: float = 0.05
    refused: float = 0.01
    restart_at: int = 50

    @classmethod
    def from_environment(cls) -> FaultPlan:
        def value(name: str, default: float) -> float:
            return float(os.environ.get(f"CODEDANCE_FAULTS_{name}", default))

        return cls(value("KILLED", cls.killed), value("REFUSED", cls.refused), int(value("RESTART_AT", cls.restart_at)))


class Faults:
    """Strikes as planned and keeps count: `calls`, `killed`, `refused`, `restarts`, `lost` (calls that went down)."""

    def __init__(self, plan: FaultPlan, file: Path) -> None:
        self._plan, self._file = plan, file
        self._chance = random.Random(0)
        self._counts: Counter[str] = Counter(calls=0, killed=0, refused=0, restarts=0, lost=0)

    def refuses(self) -> bool:
        """Decides on an attempt to open a session: true if it is refused."""
        return self._chance.random() < self._plan.refused and self._count("refused")

    def kills(self) -> bool:
        """Decides on the next call: true if it is killed."""
        self._count("calls")
        return self._chance.random() < self._plan.killed and self._count("killed")

    def restart_is_due(self) -> bool:
        due = 0 < self._plan.restart_at <= self._counts["calls"] and not self._counts["restarts"]
        return due and self._count("restarts")

    def saw(self, execution: Execution) -> Execution:
        if execution.status is ExecutionStatus.KILLED:
            self._count("lost")
        return execution

    def _count(self, what: str) -> bool:
        self._counts[what] += 1
        self._file.write_text(json.dumps(self._counts) + "\n")
        return True


class _FaultySession:
    """A session of the real pool whose calls now and then come to nothing."""

    def __init__(self, session: SandboxSession, faults: Faults, actors: list[Any]) -> None:
        self._session, self._faults, self._actors = session, faults, actors

    async def run(self, code: str) -> Execution:
        if self._faults.kills():
            return lost(ExecutionStatus.KILLED)
        if self._faults.restart_is_due():
            ray.kill(self._actors[0])
        return self._faults.saw(await self._session.run(code))


class _FaultyPool:
    """The real pool, refusing now and then."""

    def __init__(self, pool: SandboxPool, faults: Faults, actors: list[Any]) -> None:
        self._pool, self._faults, self._actors = pool, faults, actors

    @contextlib.asynccontextmanager
    async def session(self, *images: bytes) -> AsyncIterator[_FaultySession]:
        if self._faults.refuses():
            raise SandboxUnavailable("refused on purpose")
        async with self._pool.session(*images) as session:
            yield _FaultySession(session, self._faults, self._actors)


class FaultyWorker(CodeDanceAgentLoopWorker):
    """A rollout worker whose agent loops get the faulty pool."""

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        faults = Faults(FaultPlan.from_environment(), Path(config.run_dir) / "faults.json")
        connect = SandboxPool.connect

        def connect_faulty(sandbox: Any) -> Any:
            actors = next(iter(ray_node.client_nodes(SandboxConfig.from_mapping(sandbox)))).actors
            return _FaultyPool(connect(sandbox), faults, actors)

        self._faulty = mock.patch.object(SandboxPool, "connect", connect_faulty)
        self._faulty.start()


class FaultyManager(CodeDanceAgentLoopManager):
    """The manager that starts these workers."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.agent_loop_workers_class = ray.remote(FaultyWorker)
