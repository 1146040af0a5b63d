"""Counts of rollouts in a row that come to nothing: too many mean that what fails will not mend itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from codedance_verl.types import FinishReason, RewardTerms, Trajectory


class TooManyFaults(RuntimeError):
    """The rollouts of a worker fail one after the other."""


class FaultCount:
    """Infrastructure faults of a rollout worker in a row."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.in_a_row = 0

    def add(self, trajectories: Sequence[Trajectory]) -> None:
        """Counts a finished group. Raises `TooManyFaults` when there were too many faults in a row."""
        for trajectory in trajectories:
            self.in_a_row = self.in_a_row + 1 if trajectory.finish is FinishReason.INFRASTRUCTURE else 0
        if self.in_a_row >= self._most:
            raise TooManyFaults(
                f"{self.in_a_row} rollouts in a row have failed for reasons outside of the model "
                f"(environment.max_faults_in_a_row={self._most}); the warnings in its log name them"
            )


class MaskedGroupCount:
    """Groups of a rollout worker in a row of which no rollout counts.

    verl's group filter drops such a group and draws another, without end where a judge is down. A run without the
    filter has the trainer count whole steps instead (`trainer/masked_steps.py`).
    """

    def __init__(self, most_steps: int | None, groups_of_step: int = 1) -> None:
        """`most_steps` is `monitors.max_masked_steps`, `groups_of_step` a worker's share of a step."""
        self._most_steps = most_steps
        self._most = math.inf if most_steps is None else most_steps * groups_of_step
        self.in_a_row = 0

    @classmethod
    def of_run(cls, config: Any) -> MaskedGroupCount:
        """For a worker of a run with this configuration; without the group filter it has no bound."""
        if not config.algorithm.filter_groups.enable:
            return cls(None)
        workers = int(config.actor_rollout_ref.rollout.agent.num_workers)
        return cls(config.monitors.max_masked_steps, math.ceil(config.data.train_batch_size / workers))

    def add(self, terms: Sequence[RewardTerms]) -> None:
        """Counts a scored group. Raises `TooManyFaults` when as many in a row are masked as those steps have."""
        self.in_a_row = self.in_a_row + 1 if all(term.masked for term in terms) else 0
        if self.in_a_row >= self._most:
            raise TooManyFaults(
                f"monitors.max_masked_steps={self._most_steps}: of {self.in_a_row} groups in a row no rollout counts, "
                "and algorithm.filter_groups.enable=true draws others for them without end; look for ungraded and "
                "infrastructure in its metrics"
            )
