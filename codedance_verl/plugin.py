"""Plugin of verl, the one place that registers with it.

Entry point group ``verl.plugins``: verl imports it wherever verl runs. verl logs a plugin that fails to load at debug
level only, so a failure is written to the error log here, and the mains call `require_loaded` before they start
anything.
"""

from __future__ import annotations

import logging
import os

from codedance_verl.verl_compat import light_imports
from codedance_verl.verl_compat.warm_workers import use_assigned_threads

logger = logging.getLogger(__name__)
_failure: BaseException | None = None


def _register_cpu_platform() -> None:
    from verl.plugin.platform import get_platform
    from verl.plugin.platform.platform_manager import PlatformRegistry

    from codedance_verl.verl_compat import repairs, vllm_cpu
    from codedance_verl.verl_compat.cpu import PlatformCPU

    if PlatformRegistry.get("cpu") is not None:
        return
    PlatformRegistry.register(platform="cpu")(PlatformCPU)
    if get_platform().device_name != "cpu":
        return
    # verl's FSDP engines are the same classes on every device; this is its own switch for choosing the registered ones.
    os.environ.setdefault("VERL_ENGINE_DEVICE", "cuda")
    # not for every device: only a CPU gets the repairs below
    repairs.require_verl_version()
    repairs.name_each_process_group_backend_once()
    repairs.offload_without_pinned_memory()
    vllm_cpu.answer_to_the_name_vllm()
    if vllm_cpu.running_in_vllm_worker():  # the process that holds vLLM's weights, and receives new ones
        vllm_cpu.keep_weights_unpacked()
        vllm_cpu.copy_received_weights()


def register() -> None:
    """Registers the CPU platform and repairs with verl; safe to call again."""
    use_assigned_threads()
    light_imports.skip_scikit_learn()  # first: what follows may import models of transformers
    light_imports.skip_ascend_transfer()
    _register_cpu_platform()


def require_loaded() -> None:
    """Raises the error that kept the plugin from loading, if one did."""
    if _failure is not None:
        raise RuntimeError(f"the verl plugin of codedance_verl did not load: {_failure}") from _failure


try:
    register()
except Exception as error:
    _failure = error
    logger.exception("codedance_verl could not register with verl")
    raise
