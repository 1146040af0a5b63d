"""Reward term of the user's own (`reward_preset.custom_term`): one number for each rollout, added to its score."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Sequence
from typing import Any

from codedance_verl.isolated.function import Fault, IsolatedFunction
from codedance_verl.isolated.plain import plain_extra_info
from codedance_verl.reward.config import RewardConfig
from codedance_verl.reward.terms import CustomValue, is_masked
from codedance_verl.types import Execution, Grade, Trajectory

LIMIT = 10.0
"""Largest value of a term, above and below zero; anything else is refused."""

PARAMETERS = ("rollout", "grade")

logger = logging.getLogger(__name__)


class CustomTerm:
    """Term of one process, or none where the configuration names none. Use it from one event loop."""

    def __init__(self, config: RewardConfig) -> None:
        self._config = config
        self._function: IsolatedFunction[float] | None = None
        if config.custom_term is not None:
            key, seconds = f"{RewardConfig.KEY}.custom_term", config.custom_timeout_s
            self._function = IsolatedFunction(key, config.custom_term, PARAMETERS, read_value, seconds=seconds)

    async def values(self, trajectories: Sequence[Trajectory], grades: Sequence[Grade]) -> list[CustomValue]:
        """Returns the term of every rollout, in their order; zero for those that are masked without it.

        Nothing is raised for a rollout that gets no value: it is logged here, and masked by `terms.score_group`.
        """
        pairs = zip(trajectories, grades, strict=True)
        return list(await asyncio.gather(*(self._value(trajectory, grade) for trajectory, grade in pairs)))

    @property
    def name(self) -> str:
        """Dotted key and path of the term; empty without one."""
        return self._function.name if self._function is not None else ""

    @property
    def given_up(self) -> str:
        """Reason why the term is not asked for any more, one line; empty while it is."""
        return self._function.given_up if self._function is not None else ""

    def check(self) -> None:
        """Raises `UserError`, one line, where the term cannot be imported or called."""
        if self._function is not None:
            self._function.check()

    def close(self) -> None:
        """Ends its process."""
        if self._function is not None:
            self._function.close()

    async def _value(self, trajectory: Trajectory, grade: Grade) -> CustomValue:
        if self._function is None or is_masked(trajectory, grade, self._config):
            return CustomValue()
        try:
            return CustomValue(await self._function.call(rollout_view(trajectory), grade.to_json()))
        except Fault as fault:
            if str(fault) != self._function.given_up:  # that one is logged once, as the reason for the end of the run
                logger.warning("record %s is masked: %s", trajectory.record_id, fault)
            return CustomValue(fault=str(fault))


def rollout_view(trajectory: Trajectory) -> dict[str, Any]:
    """Returns a rollout as the term sees it: plain JSON, images as their number."""
    turns = [
        {
            "text": turn.text,
            "tokens": turn.token_end - turn.token_start,
            "code": turn.code,
            "execution": _execution_view(turn.execution) if turn.execution is not None else None,
        }
        for turn in trajectory.turns
    ]
    return {
        "record_id": trajectory.record_id,
        "data_source": trajectory.data_source,
        "style": trajectory.style,
        "question": trajectory.question,
        "ground_truth": trajectory.ground_truth,
        "extra_info": plain_extra_info(trajectory.extra_info),
        "answer": trajectory.answer,
        "finish": trajectory.finish.value,
        "format": trajectory.format,
        "turns": turns,
    }


def read_value(value: Any) -> float:
    """Checks what a term returned. Raises `ValueError` for anything but a finite number within the limit."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or abs(value) > LIMIT:
        raise ValueError(f"it returned {value!r:.100}; it must return a number from {-LIMIT:g} to {LIMIT:g}")
    return float(value)


def _execution_view(execution: Execution) -> dict[str, Any]:
    record = execution.as_record(()) | {"images": len(execution.images)}
    del record["queue_s"]  # the load of the sandbox says nothing of the model
    if execution.error is not None:
        del record["error"]["traceback"]
    return record
