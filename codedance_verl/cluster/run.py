"""A run on a cluster that it has joined: its nodes are checked before it starts and watched while it goes on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from codedance_verl.cluster.connection import joins


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
