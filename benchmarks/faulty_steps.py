"""Rollout workers that meet a fault in every step, as `PLAN` has it.

Chosen as `actor_rollout_ref.rollout.agent.agent_loop_manager_class=benchmarks.faulty_steps.FaultyStepsManager`, with
one rollout worker. `benchmarks.faults` runs it and adds up what came of it.
"""

from __future__ import annotations

import contextvars
from enum import StrEnum
from typing import Any

import ray

from codedance_verl.rollout.group_scorer import GroupScores
from codedance_verl.rollout.worker import CodeDanceAgentLoopManager, CodeDanceAgentLoopWorker
from codedance_verl.types import Grade, Trajectory, Verdict


class StepFault(StrEnum):
    """Fault of a step."""

    REQUEST = "the first requests of a group fail"
    GROUP = "a group fails"
    JUDGE = "the judge is down"
    ENGINE = "every request fails"
    GROUPS = "every group fails"


PLAN = (
    StepFault.REQUEST,
    StepFault.GROUP,
    StepFault.REQUEST,
    StepFault.JUDGE,
    StepFault.REQUEST,
    StepFault.GROUP,
    StepFault.ENGINE,
    StepFault.GROUPS,
    StepFault.REQUEST,
    StepFault.GROUP,
)
"""By step, from the first."""

_request_fails: contextvars.ContextVar[bool] = contextvars.ContextVar("request_fails", default=False)


class _FaultyEngine:
    """verl's client of the vLLM servers; it raises in a rollout whose requests are to fail."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def generate(self, **request: Any) -> Any:
        if _request_fails.get():
            raise RuntimeError("this request fails on purpose")
        return await self._client.generate(**request)


class FaultyStepsWorker(CodeDanceAgentLoopWorker):
    """The one rollout worker of a run; the first group that it begins in a step is the one that is struck."""

    llm_client: Any

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        self.llm_client = _FaultyEngine(self.llm_client)
        self._begun: set[int] = set()
        self._ungraded = False
        grader: Any = self.scorer.grader
        grade = grader.grade_rollout

        async def grade_rollout(rollout: Trajectory) -> Grade:
            if self._ungraded:
                return Grade(Verdict.UNGRADED, "judge", "the judge is down on purpose")
            return await grade(rollout)  # type: ignore[no-any-return]

        grader.grade_rollout = grade_rollout

    async def _run_group(
        self, prompt: dict[str, Any], sampling_params: dict[str, Any], trajectory: dict[str, Any], trace: bool
    ) -> GroupScores:
        step = int(trajectory["step"])
        fault, first = PLAN[(step - 1) % len(PLAN)], step not in self._begun
        self._begun.add(step)
        if fault is StepFault.GROUPS or (fault is StepFault.GROUP and first):
            raise RuntimeError("this group fails on purpose")
        self._ungraded = fault is StepFault.JUDGE  # synchronous training: the groups of one step alone are in flight
        _request_fails.set(fault is StepFault.ENGINE or (fault is StepFault.REQUEST and first))
        return await super()._run_group(prompt, sampling_params, trajectory, trace)


class FaultyStepsManager(CodeDanceAgentLoopManager):
    """The manager that starts these workers."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.agent_loop_workers_class = ray.remote(FaultyStepsWorker)
