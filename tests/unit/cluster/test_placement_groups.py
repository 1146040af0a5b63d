"""A wait for resources that no node has ends with one line; the tables are those Ray makes, the clock is the test's."""

from __future__ import annotations

import inspect
import re
import time
from pathlib import Path

import pytest
from ray._raylet import JobID, PlacementGroupID
from verl.single_controller.ray.base import RayResourcePool

from codedance_verl.cluster import placement_groups as module
from codedance_verl.cluster.placement_groups import PlacementWatch, Room, Wanted, lacking, waiting_groups
from codedance_verl.cluster.watch import placement_watched
from codedance_verl.errors import UserError
from codedance_verl.runtime.run_limits import guarded
from codedance_verl.sandbox.placement import RayNode

EIGHT = Wanted("a", [{"CPU": 3.0, "GPU": 1.0}] * 8, one_node=True)
HEAD = Room(RayNode("h", "10.0.0.1", {"CPU": 4.0}), {"CPU": 4.0})
SMALL = Room(RayNode("s", "10.0.0.2", {"CPU": 16.0, "GPU": 8.0}), {"CPU": 12.0, "GPU": 8.0})
BUSY = Room(RayNode("b", "10.0.0.3", {"CPU": 32.0, "GPU": 8.0}), {"CPU": 26.0, "GPU": 2.0})


class Clock:
    """Time as the test sets it."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_what_each_node_lacks_is_told_and_nodes_without_gpus_are_counted() -> None:
    assert lacking(EIGHT, [HEAD, SMALL, BUSY]) == (
        "node 10.0.0.3 lacks 6 GPU, node 10.0.0.2 lacks 12 CPU, 1 further node(s) lack more"
    )
    assert lacking(EIGHT, [HEAD]) == "none of 1 node(s) has all of these"


def test_groups_that_may_be_spread_are_held_against_all_nodes() -> None:
    spread = Wanted("a", [{"CPU": 8.0}] * 8, one_node=False)
    assert lacking(spread, [HEAD, SMALL, BUSY]) == "all nodes together lack 22 CPU"


def test_a_group_is_told_once_it_has_waited_for_longer_than_the_limit() -> None:
    clock, waiting = Clock(), [EIGHT]
    watch = PlacementWatch(60.0, lambda: waiting, lambda: [HEAD, SMALL], clock)
    assert watch.poll() is None
    clock.now = 50.0
    waiting = []  # placed
    assert watch.poll() is None
    waiting = [EIGHT]  # its node was lost
    assert watch.poll() is None
    clock.now = 105.0
    assert watch.poll() is None, "it began to wait again at 50"
    clock.now = 111.0
    assert watch.poll() == (
        "placement_limit_s=60: Ray found no room for 1 group(s) of devices, such as 8 x {CPU 3, GPU 1} on one node, in "
        "that time; node 10.0.0.2 lacks 12 CPU, 1 further node(s) lack more; start the nodes with more, or ask for "
        "fewer devices (docs/clusters.md)"
    )


def test_groups_of_this_job_that_wait_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, others = (JobID.from_int(number) for number in (5, 6))
    bundles = {0: {"CPU": 3.0, "GPU": 1.0}, 1: {"CPU": 3.0, "GPU": 1.0}}
    states = [(ours, "PENDING"), (ours, "CREATED"), (ours, "REMOVED"), (others, "PENDING"), (ours, "RESCHEDULING")]
    table = {
        PlacementGroupID.of(job).hex(): {"state": state, "bundles": bundles, "strategy": "STRICT_PACK", "name": "x"}
        for job, state in states
    }

    class Context:
        def get_job_id(self) -> str:
            return str(ours.hex())

    monkeypatch.setattr(module.ray, "get_runtime_context", Context)
    monkeypatch.setattr(module.ray.util, "placement_group_table", lambda: table)
    found = waiting_groups()
    assert [group.group_id for group in found] == [next(iter(table)), list(table)[4]]
    assert str(found[0]) == "2 x {CPU 3, GPU 1} on one node"


def test_a_run_that_waits_for_too_long_ends_with_that_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "waiting_groups", lambda: [EIGHT])
    monkeypatch.setattr(module, "free_rooms", lambda: [SMALL])
    with (
        pytest.raises(UserError, match=r"^placement_limit_s=0\.2: .*node 10\.0\.0\.2 lacks 12 CPU"),
        guarded(tmp_path, time_limit_s=30, check_seconds=0.05),
        placement_watched(tmp_path, 0.2),
    ):
        time.sleep(30)


def test_verl_still_waits_without_a_limit_for_groups_of_one_node() -> None:
    """What this module is for; where verl bounds the wait itself, or packs otherwise, it can go."""
    source = inspect.getsource(RayResourcePool.get_placement_groups)
    assert 'strategy="STRICT_PACK"' in source
    assert re.search(r"ray\.get\(\[pg\.ready\(\) for pg in pgs\]\)", source)
