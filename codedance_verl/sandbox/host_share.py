"""Division of a host among node actors: one event loop serves the cells of few cores, so a large host has several."""

from __future__ import annotations

import os

from codedance_verl.sandbox.config import SandboxConfig


def actors_on(config: SandboxConfig, cores: int | None = None) -> int:
    """Returns the number of node actors of a host with so many cores; of this one without a number."""
    return max((cores or os.cpu_count() or 1) // config.cores_per_actor, 1)


def share_of(config: SandboxConfig, actors: int) -> SandboxConfig:
    """Returns what each of a host's node actors is given, rounded up, so that every one has a container."""
    if actors == 1:
        return config
    names = ("containers", "standby_containers", "queue_length", "cpu_weight")
    shares = {name: _rounded_up(getattr(config, name), actors) for name in names}
    return config.replace(**shares, concurrent_cells=_rounded_up(config.cell_slots, actors))


def containers_on(config: SandboxConfig, actors: int) -> int:
    """Returns the most containers of a host, standby ones included."""
    share = share_of(config, actors)
    # The standby actor beside a single node actor has as many of its own.
    return actors * (share.containers + share.standby_containers) + (config.standby_containers if actors == 1 else 0)


def _rounded_up(value: int, parts: int) -> int:
    return -(-value // parts)
