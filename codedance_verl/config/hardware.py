"""Hardware of this machine: `hardware=auto`, the default, becomes an option of `conf/hardware` here."""

from __future__ import annotations

import os

from codedance_verl.errors import UserError

AUTO = "hardware=auto"
RESOLVER = "detected_hardware"
"""Resolver of `conf/train.yaml` and `conf/sft.yaml`; a recipe or the command line can choose another option."""


def detect() -> str:
    """`gpu` where torch finds a CUDA device, else `cpu`."""
    import torch

    return "gpu" if torch.cuda.is_available() else "cpu"


def option() -> str:
    """The option of `conf/hardware` for this machine. More than one GPU is asked for by name, such as 8xgpu.

    Raises:
        UserError: the run joins a cluster; what counts is what its nodes have, and this may be one without GPUs.
    """
    if joins():
        raise UserError("hardware=auto: on a cluster that runs already say hardware=1xgpu, 8xgpu, 2x8gpu or cpu")
    return "1xgpu" if detect() == "gpu" else "cpu"


def resolve(overrides: list[str]) -> list[str]:
    """The overrides with `hardware=auto` replaced by what this machine has."""
    return [f"hardware={option()}" if override == AUTO else override for override in overrides]


def joins(address: str | None = None) -> bool:
    """True where a run joins a running cluster; `address` is `ray_kwargs.ray_init.address`."""
    if address is not None:
        return address != "local"
    return os.environ.get("RAY_ADDRESS") not in (None, "", "local")  # Ray takes an empty one for none
