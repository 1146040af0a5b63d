"""Notices that a rollout worker has died: verl waits for the rollouts it had been given without end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ray
from ray.exceptions import RayActorError

from codedance_verl.errors import UserError


class RolloutWorkerDied(UserError):
    """A rollout worker's process has ended, and with it rollouts that the step waits for."""


class WorkerHealthCheck:
    """Asks every rollout worker for a sign of life, and for the next one when it has given it.

    A worker whose event loop is busy answers later; that is no fault.
    """

    def __init__(self) -> None:
        self._asked: dict[int, Any] = {}

    def poll(self, workers: Sequence[Any]) -> None:
        """Look at the answers there are; does not wait.

        Raises:
            RolloutWorkerDied: a worker is dead.
        """
        for index, worker in enumerate(workers):
            asked = self._asked.get(index)
            if asked is not None:
                if not ray.wait([asked], timeout=0)[0]:
                    continue
                _read(asked, index)
            self._asked[index] = worker.__ray_ready__.remote()


def _read(answer: Any, index: int) -> None:
    try:
        ray.get(answer)
    except RayActorError as error:
        why = str(error).strip().splitlines()[0]
        raise RolloutWorkerDied(
            f"rollout worker {index} has died ({why}); start the run again to resume from the last checkpoint"
        ) from None
