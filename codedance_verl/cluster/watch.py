"""Notices when a node of the cluster is lost, and ends the run where it cannot go on without it.

verl waits for the rollouts of workers that have died with their node, without end. A node on which there were only
interpreters is another matter: their sessions are masked, and new ones go elsewhere.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
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

from codedance_verl.errors import UserError
from codedance_verl.runtime.run_limits import Stopped, request_stop
from codedance_verl.sandbox.placement import living_nodes
from codedance_verl.trainer.health_check import RolloutWorkerDied

CHECK_SECONDS = 2.0
NOTICE_SECONDS = 45.0
"""How long Ray may take to count a node out whose processes have gone; a worker's death is known long before."""

_INTERPRETERS = "SandboxNodeActor"
_OF_A_LOSS = (
    *(RayActorError, ActorUnschedulableError, NodeDiedError, ObjectLostError, WorkerCrashedError),
    # ranks that are left raise whatever a broken collective raises; Ray's error is of that type, too
    RayTaskError,
)
_logger = logging.getLogger(__name__)

Look = Callable[[], str | None]


class NodeWatch:
    """Which nodes of the cluster are lost, and whether the run needed them."""

    def __init__(self) -> None:
        self._addresses: dict[str, str] = {}
        self._reason: str | None = None

    def look(self) -> str | None:
        """Why the run must end, once a node it needs is lost; the loss of others is logged."""
        alive = {node.node_id: node.address for node in living_nodes()}
        for node_id in set(self._addresses) - set(alive):
            address = self._addresses[node_id]
            if lost := needed_actors(node_id):
                self._reason = (
                    f"node {address} of the cluster was lost, and with it {', '.join(lost)}; start the run again to "
                    "resume from the last checkpoint"
                )
            else:
                _logger.warning("node %s was lost; the run had only interpreters there and goes on", address)
        self._addresses = alive
        return self._reason


def needed_actors(node_id: str) -> list[str]:
    """Kinds of this job's actors on a node, dead ones included, those of the sandbox left out."""
    try:
        found = list_actors(
            filters=[("node_id", "=", node_id), ("job_id", "=", ray.get_runtime_context().get_job_id())],
            limit=1000,
            timeout=10,
            raise_on_missing_output=False,
        )
    except Exception as error:  # whatever keeps Ray from telling: better end a run too much than wait for ever
        return [f"actors that cannot be listed ({type(error).__name__})"]
    return sorted({str(actor.class_name) for actor in found} - {_INTERPRETERS})


@contextlib.contextmanager
def watched(run_dir: Path, look: Look, check_seconds: float = CHECK_SECONDS) -> Iterator[None]:
    """Ask for the end of the run in `run_dir` (`guards.request_stop`) as soon as `look` gives a reason for it."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(check_seconds):
            try:
                if reason := look():
                    request_stop(run_dir, reason)
                    return
            except Exception as error:  # a GCS or a file system that does not answer costs this look, not the next one
                _logger.warning("the cluster's nodes cannot be looked at: %s", error)

    watcher = threading.Thread(target=watch, name="node-watch", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join(timeout=30)


@contextlib.contextmanager
def explained(look: Look, notice_seconds: float = NOTICE_SECONDS) -> Iterator[None]:
    """Turn an error of an actor in the block into the loss of a node, where that is what it comes from.

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
            if reason := look():
                raise UserError(reason) from None
            if time.monotonic() > deadline:
                raise
            time.sleep(1.0)


def _is_no_loss(error: Exception) -> bool:
    """What the run has said itself needs no other explanation, unless it says that a worker has died."""
    return isinstance(error, UserError | Stopped) and not isinstance(error, RolloutWorkerDied)
