"""Health check of the rollout workers: verl waits without end for the rollouts of one that has died."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ray.exceptions import RayActorError

from codedance_verl.errors import UserError
from codedance_verl.runtime.remote_answers import answers_within


class RolloutWorkerDied(UserError):
    """Raised when a rollout worker's process has ended, and with it rollouts that the step waits for."""


class WorkerHealthCheck:
    """Asks every rollout worker for a sign of life, and for the next one when it has given it.

    A worker whose event loop is busy answers later; that is no fault.
    """

    def __init__(self) -> None:
        self._calls: dict[int, Any] = {}

    def poll(self, workers: Sequence[Any]) -> None:
        """Reads the answers there are; does not wait.

        Raises:
            RolloutWorkerDied: a worker is dead.
        """
        for index, answer in answers_within(self._calls, 0.0).items():
            if isinstance(answer, RayActorError):
                why = str(answer).strip().splitlines()[0]
                raise RolloutWorkerDied(
                    f"rollout worker {index} has died ({why}); start the run again to resume from the last checkpoint"
                )
            if isinstance(answer, Exception):
                raise answer
            del self._calls[index]
        for index, worker in enumerate(workers):
            if index not in self._calls:
                self._calls[index] = worker.__ray_ready__.remote()
