"""Division of a host among node actors."""

from __future__ import annotations

import pytest

from codedance_verl.sandbox.config import SandboxConfig
from codedance_verl.sandbox.host_share import actors_on, containers_on, share_of


@pytest.mark.parametrize(("cores", "actors"), [(1, 1), (2, 1), (15, 1), (16, 2), (64, 8), (192, 24)])
def test_a_node_actor_for_every_so_many_cores(cores: int, actors: int) -> None:
    assert actors_on(SandboxConfig(cores_per_actor=8), cores) == actors


def test_one_actor_has_what_is_configured() -> None:
    config = SandboxConfig(containers=3)
    assert share_of(config, 1) is config
    assert containers_on(config, 1) == 3 + 2 * config.standby_containers


@pytest.mark.parametrize("actors", [2, 3, 8])
def test_shares_add_up_to_the_whole_at_least_and_none_is_empty(actors: int) -> None:
    config = SandboxConfig(containers=5, standby_containers=2, queue_length=100, concurrent_cells=64)
    share = share_of(config, actors)
    for name in ("containers", "standby_containers", "queue_length", "concurrent_cells"):
        whole, part = getattr(config, name), getattr(share, name)
        assert part >= 1 and whole <= part * actors < whole + actors
    assert share.sessions_per_container == config.sessions_per_container
    assert containers_on(config, actors) == actors * (share.containers + share.standby_containers)


def test_no_standby_containers_stay_none() -> None:
    assert share_of(SandboxConfig(standby_containers=0), 4).standby_containers == 0
