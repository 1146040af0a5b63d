"""Checks of a run's nodes: before it starts, and while it runs, which ends where a node that it needs is lost.

verl waits for the rollouts of workers that have died with their node, without end. A node on which there were only
interpreters is another matter: their sessions are masked, and new ones go elsewhere.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import ray
from ray.exceptions import (
    ActorUnschedulableError,
    NodeDiedError,
    ObjectLostError,
    RayActorError,
    RayTaskError,
    WorkerCrashedError,
)
from ray.util.state import list_actors

from codedance_verl.cluster.placement_groups import PlacementWatch
from codedance_verl.cluster.storage import check_shared
from codedance_verl.config.hardware import joins
from codedance_verl.errors import UserError
from codedance_verl.runtime.run_limits import Stopped, request_stop
from codedance_verl.runtime.watchdog import Watchdog
from codedance_verl.sandbox.placement import living_nodes
from codedance_verl.trainer.health_check import RolloutWorkerDied

CHECK_SECONDS = 2.0
PLACEMENT_CHECK_SECONDS = 10.0
NOTICE_SECONDS = 45.0
"""Longest wait for Ray to declare a node dead; the death of a worker on it is reported long before."""

_INTERPRETERS = "SandboxNodeActor"
_OF_A_LOSS = (
    *(RayActorError, ActorUnschedulableError, NodeDiedError, ObjectLostError, WorkerCrashedError),
    # the other ranks raise whatever a broken collective raises, as a task's error
    RayTaskError,
)
_logger = logging.getLogger(__name__)

Poll = Callable[[], str | None]
"""Returns why the run must end, or None."""


class NodeWatch:
    """Watch over the cluster's nodes: which are lost, and whether the run needed them."""

    def __init__(self) -> None:
        self._addresses: dict[str, str] = {}
        self._reason: str | None = None

    def poll(self) -> str | None:
        """Returns why the run must end, once a node it needs is lost; the loss of others is logged."""
        alive = {node.node_id: node.address for node in living_nodes()}
        for node_id in set(self._addresses) - set(alive):
            address = self._addresses[node_id]
            if lost := needed_actors(node_id):
                self._reason = (
                    f"node {address} of the cluster was lost, and with it {', '.join(lost)}; start the run again to "
                    "resume from the last checkpoint"
                )
            else:
                _logger.warning("node %s was lost; the run had only interpreters there and continues", address)
        self._addresses = alive  # nodes that joined since are watched from now on
        return self._reason


def needed_actors(node_id: str) -> list[str]:
    """Returns the classes of this job's actors on a node, dead ones included, those of the sandbox left out."""
    try:
        found = list_actors(
            filters=[("node_id", "=", node_id), ("job_id", "=", ray.get_runtime_context().get_job_id())],
            limit=1000,
            timeout=10,
            raise_on_missing_output=False,
        )
    except Exception as error:  # of any kind: to end a run without need costs less than to wait without end
        return [f"actors that cannot be listed ({type(error).__name__})"]
    return sorted({str(actor.class_name) for actor in found} - {_INTERPRETERS})


def watched(run_dir: Path, poll: Poll, check_seconds: float = CHECK_SECONDS) -> Watchdog:
    """Asks for the end of the run in `run_dir` (`run_limits.request_stop`) as soon as `poll` gives a reason for it."""

    def end_if_needed() -> bool:
        reason = poll()
        if reason:
            request_stop(run_dir, reason)
        return bool(reason)

    return Watchdog(check_seconds, end_if_needed, "cluster-watchdog")


@contextlib.contextmanager
def explained(poll: Poll, notice_seconds: float = NOTICE_SECONDS) -> Iterator[None]:
    """Turns an error of an actor in the block into the loss of a node, where that is its cause.

    Raises:
        UserError: instead of Ray's error, when a node that was needed is lost within `notice_seconds` of it.
    """
    try:
        yield
    except _OF_A_LOSS as error:
        if _is_no_loss(error):
            raise
        deadline = time.monotonic() + notice_seconds
        while True:
            if reason := poll():
                raise UserError(reason) from None
            if time.monotonic() > deadline:
                raise
            time.sleep(1.0)


def _is_no_loss(error: Exception) -> bool:
    """True for an error that the run raised itself, unless it says that a worker has died."""
    return isinstance(error, UserError | Stopped) and not isinstance(error, RolloutWorkerDied)


def placement_watched(run_dir: Path, limit_s: float | None) -> contextlib.AbstractContextManager[object]:
    """Ends the run inside the block where Ray finds no room for what verl asks for within `limit_s`; None: no limit.

    Raises:
        UserError: by way of `run_limits.guarded`; names what is asked for, and what each node lacks.
    """
    if limit_s is None:
        return contextlib.nullcontext()
    return watched(run_dir, PlacementWatch(limit_s).poll, min(PLACEMENT_CHECK_SECONDS, limit_s / 4))


@contextlib.contextmanager
def on_cluster(address: str | None, run_dir: Path, inputs: Mapping[str, str]) -> Iterator[None]:
    """Runs the block with its nodes checked and watched; does nothing on a cluster of the run's own.

    Args:
        address: the one given to `ray.init`.
        run_dir: the run's folder.
        inputs: paths of data and model by configuration key.

    Raises:
        UserError: the nodes do not share what they must, or one that the run needs was lost.
    """
    if not joins(address):
        yield
        return
    check_shared(run_dir, inputs)
    watch = NodeWatch()
    watch.poll()  # the nodes that later ones are compared with
    with watched(run_dir, watch.poll), explained(watch.poll):
        yield
