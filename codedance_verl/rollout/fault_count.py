"""Counts of consecutive rollouts that come to nothing: too many mean that the fault will not mend itself."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from codedance_verl.rollout.telemetry import LeftOut
from codedance_verl.types import FinishReason, RewardTerms


class TooManyFaults(RuntimeError):
    """Error for a worker whose rollouts fail one after the other."""


class FaultCount:
    """Count of consecutive infrastructure faults of a rollout worker."""

    def __init__(self, most: int | None) -> None:
        """Counts nothing yet; `most`: `environment.max_faults_in_a_row`, None for no limit."""
        self._most = most
        self.in_a_row = 0

    def add(self, finishes: Iterable[FinishReason]) -> None:
        """Counts a finished group. Raises `TooManyFaults` when there were too many faults in a row."""
        for finish in finishes:
            self.in_a_row = self.in_a_row + 1 if finish is FinishReason.INFRASTRUCTURE else 0
        if self._most is not None and self.in_a_row >= self._most:
            raise TooManyFaults(
                f"{self.in_a_row} rollouts in a row have failed for reasons outside of the model "
                f"(environment.max_faults_in_a_row={self._most}); the warnings in its log name them"
            )


class MaskedGroupCount:
    """Count of consecutive groups of a rollout worker that come to nothing, and that verl replaces without end.

    Its group filter draws for groups of which no rollout counts, as where a judge is down. For groups that have failed
    it draws in both asynchronous modes, and in the other where `trainer.v1.sampler.sync_refill_failed_groups` says so.
    Whatever else comes to nothing fills a step, and the trainer counts steps (`trainer/masked_steps.py`).
    """

    def __init__(self, most_steps: int | None, groups_of_step: int = 1, *, masked: bool, failed: bool) -> None:
        """Counts nothing yet.

        Args:
            most_steps: `monitors.max_masked_steps`.
            groups_of_step: a worker's share of a step.
            masked: others are drawn for groups of which no rollout counts.
            failed: others are drawn for groups that have failed.
        """
        self._most_steps, self._masked, self._failed = most_steps, masked, failed
        self._most = math.inf if most_steps is None else most_steps * groups_of_step
        self.in_a_row = 0

    @classmethod
    def of_run(cls, config: Any) -> MaskedGroupCount:
        """Returns the count for a worker of a run with this configuration."""
        workers, v1 = int(config.actor_rollout_ref.rollout.agent.num_workers), config.trainer.v1
        return cls(
            config.monitors.max_masked_steps,
            math.ceil(config.data.train_batch_size / workers),
            masked=bool(config.algorithm.filter_groups.enable),
            failed=v1.trainer_mode != "sync" or bool(v1.sampler.sync_refill_failed_groups),
        )

    def add(self, terms: Sequence[RewardTerms | LeftOut] | None) -> None:
        """Counts a group that has ended; `terms`: of its rollouts, None where it has failed.

        Raises:
            TooManyFaults: as many in a row came to nothing as those steps have.
        """
        if terms is None:
            self.in_a_row += self._failed
        elif self._masked and all(term.masked for term in terms):
            self.in_a_row += 1
        else:
            self.in_a_row = 0
        if self.in_a_row >= self._most:
            raise TooManyFaults(
                f"monitors.max_masked_steps={self._most_steps}: of {self.in_a_row} groups in a row no rollout counts, "
                "and verl draws others for them without end; the rollout workers' log has the errors of those that "
                "failed, and ungraded and infrastructure in its metrics are the others"
            )
