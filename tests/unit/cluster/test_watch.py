from __future__ import annotations

import time
from pathlib import Path

import pytest
from ray.exceptions import ActorDiedError, RayTaskError

from codedance_verl.cluster import watch
from codedance_verl.cluster.watch import NodeWatch, explained, watched
from codedance_verl.errors import UserError
from codedance_verl.runtime.run_limits import Stopped, guarded
from codedance_verl.sandbox.placement import RayNode
from codedance_verl.trainer.health_check import RolloutWorkerDied


def _cluster(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    nodes = [RayNode(f"id-{address}", address, {}) for address in addresses]
    monkeypatch.setattr(watch, "living_nodes", lambda: nodes)


def test_a_lost_node_counts_when_the_run_needed_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "needed_actors", lambda node_id: ["Worker"] if node_id == "id-b" else [])
    looker = NodeWatch()
    _cluster(monkeypatch, "a", "b")
    assert looker.poll() is None
    _cluster(monkeypatch, "a", "b", "c")  # joins later
    assert looker.poll() is None
    _cluster(monkeypatch, "a", "b")  # had interpreters only
    assert looker.poll() is None
    _cluster(monkeypatch, "a")
    reason = looker.poll()
    assert reason is not None and "node b of the cluster was lost" in reason and "Worker" in reason
    assert looker.poll() == reason, "whoever looks next is told, too"


def test_the_run_ends_with_the_reason(tmp_path: Path) -> None:
    with (
        pytest.raises(UserError, match="node b was lost"),
        guarded(tmp_path, time_limit_s=30, check_seconds=0.05),
        watched(tmp_path, lambda: "node b was lost", check_seconds=0.05),
    ):
        time.sleep(30)


def test_a_look_that_fails_is_followed_by_another(tmp_path: Path) -> None:
    looks = iter([ConnectionError("the GCS does not answer"), OSError("stale file handle"), "node b was lost"])

    def look() -> str:
        found = next(looks)
        if isinstance(found, Exception):
            raise found
        return found

    with (
        pytest.raises(UserError, match="node b was lost"),
        guarded(tmp_path, time_limit_s=10, check_seconds=0.05),
        watched(tmp_path, look, check_seconds=0.05),
    ):
        time.sleep(30)


def test_an_actors_death_is_explained_by_the_loss_of_its_node() -> None:
    looks = iter([None, "node b was lost"])  # Ray notices later that the node is gone
    with pytest.raises(UserError, match="node b was lost"), explained(lambda: next(looks), notice_seconds=30):
        raise ActorDiedError


@pytest.mark.parametrize("cause", [RuntimeError("gloo: connection closed by peer"), RolloutWorkerDied("worker 1")])
def test_what_a_loss_breaks_elsewhere_is_explained_by_it(cause: Exception) -> None:
    error = RayTaskError("step", "traceback", cause).as_instanceof_cause()
    with pytest.raises(UserError, match="node b was lost"), explained(lambda: "node b was lost", notice_seconds=0):
        raise error


@pytest.mark.parametrize("cause", [UserError("a bad record"), Stopped("step 2 is saved")])
def test_what_the_run_says_itself_stays_what_it_is(cause: Exception) -> None:
    error = RayTaskError("step", "traceback", cause).as_instanceof_cause()
    with pytest.raises(type(cause)), explained(lambda: pytest.fail("has nothing to do with nodes")):
        raise error


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(ActorDiedError), explained(lambda: None, notice_seconds=0):
        raise ActorDiedError
    with pytest.raises(ValueError, match="mine"), explained(lambda: pytest.fail("has nothing to do with nodes")):
        raise ValueError("mine")
