"""CPU as a verl platform: `PlatformRegistry` name ``cpu``.

verl takes it by itself where no accelerator is found, or when `VERL_PLATFORM=cpu` says so. Worker groups ask Ray for
"GPU"s as on any other machine; without an accelerator these are logical (`ray.init(num_gpus=...)`).
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from verl.plugin.platform.platform_base import PlatformBase


class _CPUDeviceModule(types.ModuleType):
    """Stand-in for `torch.cuda`: no-ops and zeros below, `torch.cpu` for all else."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch.cpu, name)


def _nothing(*args: Any, **kwargs: Any) -> None:
    pass


def _zero(*args: Any, **kwargs: Any) -> int:
    return 0


def _rng_state(device: Any = None) -> torch.Tensor:
    return torch.get_rng_state()


def _set_rng_state(state: torch.Tensor, device: Any = None) -> None:
    torch.set_rng_state(state)


def _make_device_module() -> _CPUDeviceModule:
    module = _CPUDeviceModule("codedance_verl_cpu_device")
    nothing = [
        "empty_cache",
        "ipc_collect",
        "synchronize",
        "reset_peak_memory_stats",
        "set_device",
        "manual_seed",
        "manual_seed_all",
    ]
    zero = ["memory_allocated", "memory_reserved", "max_memory_allocated", "max_memory_reserved", "current_device"]
    namespace: dict[str, Any] = dict.fromkeys(nothing, _nothing) | dict.fromkeys(zero, _zero)
    namespace |= {
        # free and total bytes; a total of 0 would fail where a share is computed
        "mem_get_info": lambda *args, **kwargs: (0, 1),
        "get_rng_state": _rng_state,
        "set_rng_state": _set_rng_state,
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "device_count": lambda: 1,
        "get_device_name": lambda *args, **kwargs: "CPU",  # the FLOPS counter reads it
    }
    vars(module).update(namespace)
    return module


DEVICE_MODULE = _make_device_module()


class PlatformCPU(PlatformBase):  # type: ignore[misc]  # verl ships no types
    """verl's platform interface for a machine without an accelerator (see `PlatformBase`)."""

    @property
    def device_name(self) -> str:
        return "cpu"

    @property
    def vendor_name(self) -> str:
        return "cpu"

    @property
    def device_module(self) -> types.ModuleType:
        return DEVICE_MODULE

    def is_available(self) -> bool:
        return True

    def current_device(self) -> str:
        """Returns the name, which verl hands to `.to(device=...)`: there an index would mean an accelerator."""
        return "cpu"

    def device_count(self) -> int:
        return 1

    def set_device(self, device_index: int) -> None:
        pass

    def synchronize(self, device_index: int | None = None) -> None:
        pass

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    def manual_seed_all(self, seed: int) -> None:
        torch.manual_seed(seed)

    def set_allocator_settings(self, settings: str) -> None:
        pass

    def empty_cache(self) -> None:
        pass

    def get_device_capability(self, device_index: int = 0) -> tuple[int | None, int | None]:
        return (None, None)

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "CUDA_VISIBLE_DEVICES"

    @contextmanager
    def nvtx_range(self, msg: str) -> Iterator[None]:
        yield

    def profiler_start(self) -> None:
        pass

    def profiler_stop(self) -> None:
        pass

    def ray_resource_name(self) -> str:
        return "GPU"  # logical ones: verl's placement groups request them by this name on every machine

    def ray_noset_envvars(self) -> list[str]:
        return ["RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"]

    def is_ipc_supported(self) -> bool:
        """Returns False: colocated weights go to vLLM through shared memory instead of CUDA IPC handles."""
        return False

    def cudart(self) -> Any:
        return None
