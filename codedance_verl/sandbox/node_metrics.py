"""Metrics of all node actors, collected by one process of a run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from codedance_verl.metrics.emit import Tally
from codedance_verl.sandbox.actor_calls import answered
from codedance_verl.sandbox.errors import NodeLost

_logger = logging.getLogger(__name__)


class NodeMetrics:
    """Asks every node actor and standby what it has counted since it was last asked.

    `names` returns the names of the actors, and is asked until it has some; `find` returns the handle of a name, or
    None. An actor that does not answer in time is not asked again until it has; its answer belongs to that step.
    """

    def __init__(
        self,
        names: Callable[[], Sequence[str]],
        find: Callable[[str], Any | None],
        answers: Callable[[Mapping[str, Any], float], Mapping[str, Any]] = answered,
    ) -> None:
        self._list_names = names
        self._find = find
        self._answers = answers
        self._names: Sequence[str] = ()
        self._actors: dict[str, Any] = {}
        self._due: dict[str, Any] = {}
        self._late: dict[str, Any] = {}

    def ask(self) -> None:
        """Sends the calls of a step; does not wait for them."""
        self._names = self._names or self._list_names()
        for name in self._names:
            if name in self._late:
                continue
            actor = self._actors.get(name) or self._find(name)
            if actor is not None:
                self._actors[name] = actor
                self._due[name] = actor.take_metrics.remote()

    def take(self, timeout_s: float) -> list[Tally]:
        """Returns the answers that are there within `timeout_s`, and those that had been late."""
        # Late ones first and without waiting: they have had a step's time.
        found = {**self._answers(self._late, 0.0), **self._answers(self._due, timeout_s)}
        asked = {**self._late, **self._due}
        self._late = {name: call for name, call in asked.items() if name not in found}
        self._due = {}
        tallies: list[Tally] = []
        for name, answer in found.items():
            if not isinstance(answer, Exception):
                tallies.append(answer)
            elif isinstance(answer, NodeLost):
                del self._actors[name]  # its successor, if there is one, has the name
            else:
                _logger.warning("sandbox: a node does not report its metrics: %s", answer)
        return tallies
