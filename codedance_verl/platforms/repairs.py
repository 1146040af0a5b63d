"""What verl 0.9.1 and torch need told on a CPU. One function per defect; each names what it mends and applies once."""

from __future__ import annotations

import functools
import importlib.metadata
from typing import Any

import torch.distributed as dist
from torch.distributed.fsdp import CPUOffloadPolicy

VERL_VERSION = "0.9.1"


def require_verl_version() -> None:
    """Raise when verl is another version than the one these repairs were written for.

    Raises:
        RuntimeError: names both versions.
    """
    found = importlib.metadata.version("verl")
    if found != VERL_VERSION:
        raise RuntimeError(
            f"codedance_verl.platforms mends verl {VERL_VERSION}, but verl {found} is installed: "
            f"install verl=={VERL_VERSION}, or check each function of codedance_verl/platforms/repairs.py against it"
        )


def name_each_process_group_backend_once() -> None:
    """verl asks torch for "cpu:gloo,<device>:<backend>", which names the CPU twice here and is refused."""
    original = dist.init_process_group

    @functools.wraps(original)
    def init_process_group(backend: str | None = None, *args: Any, **kwargs: Any) -> Any:
        if isinstance(backend, str) and "," in backend:
            backend = ",".join(dict.fromkeys(backend.split(",")))
        return original(backend, *args, **kwargs)

    dist.init_process_group = init_process_group


def offload_without_pinned_memory() -> None:
    """verl's FSDP2 reference model offloads with pinned memory, which only an accelerator has."""
    original = CPUOffloadPolicy.__init__

    def without_pinning(self: CPUOffloadPolicy, pin_memory: bool = False) -> None:
        original(self, pin_memory=False)

    CPUOffloadPolicy.__init__ = without_pinning  # type: ignore[method-assign]
