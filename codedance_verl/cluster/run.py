"""A run on a cluster that it has joined: its nodes are checked before it starts and watched while it goes on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from codedance_verl.config.hardware import joins

PLACEMENT_CHECK_SECONDS = 10.0


@contextlib.contextmanager
def placement_watched(run_dir: Path, limit_s: float | None) -> Iterator[None]:
    """Run the block, and end it where Ray finds no room for what verl asks for within `limit_s`; None watches nothing.

    Raises:
        UserError: by way of `guards.guarded`; names what is asked for, and what each node lacks.
    """
    if limit_s is None:
        yield
        return
    from codedance_verl.cluster.placement_groups import PlacementWatch
    from codedance_verl.cluster.watch import watched

    with watched(run_dir, PlacementWatch(limit_s).look, min(PLACEMENT_CHECK_SECONDS, limit_s / 4)):
        yield


@contextlib.contextmanager
def on_cluster(address: str | None, run_dir: Path, inputs: Mapping[str, str]) -> Iterator[None]:
    """Run the block with its nodes checked and watched; does nothing on a cluster of the run's own.

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
    from codedance_verl.cluster.storage import check_shared
    from codedance_verl.cluster.watch import NodeWatch, explained, watched

    check_shared(run_dir, inputs)
    watch = NodeWatch()
    watch.look()
    with watched(run_dir, watch.look), explained(watch.look):
        yield
