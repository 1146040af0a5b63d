"""Settings of a run as a whole, which stand at the root of the configuration (`conf/train.yaml`, `conf/sft.yaml`)."""

from __future__ import annotations

from pydantic import Field

from codedance_verl.config.node import Node


class RunConfig(Node):
    """Seed, time limits and switches of a run."""

    dry_run: bool = False
    """Checks everything that can be known without a device, and ends."""
    seed: int = Field(0, ge=0, le=2**31 - 1)
    """Seed of data order, rollout sampling and shuffling."""
    time_limit_s: float | None = Field(None, ge=1, le=1e9)
    """Wall seconds after which the run is stopped with an error; null for no limit."""
    placement_limit_s: float | None = Field(600.0, ge=1, le=604_800)
    """Wall seconds that Ray may take to find room for verl's devices; null for no limit."""
    step_limit_s: float | None = Field(None, ge=1, le=604_800)
    """Wall seconds of a training step or a validation; null for no limit."""
    stop_grace_s: float = Field(300.0, ge=1, le=86_400)
    """Wall seconds to finish or abandon a step and to save, once the run is asked to end."""
    deterministic: bool = False
    """Draws the same rollouts and ends with the same weights in every run."""
    skip_bad_records: bool = False
    """Leaves out records that cannot be read, instead of an error."""
    warm_start: bool = False
    """Has the processes on this machine forked from one that has imported their libraries."""
    gpu_memory_gib: float | None = Field(None, ge=1, le=1024)
    """Memory of a GPU for the estimate of a dry run, in GiB; null where `hardware` has none."""
