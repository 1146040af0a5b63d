"""Ray actors that import only the modules they run.

Ray loads the class of an actor wherever a handle of it arrives, and a class that is pickled by name imports its module.
verl 0.9.1 so imports all of vLLM into the load balancer and into each rollout worker, which only call the server.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from codedance_verl.verl_compat.repairs import require_verl_version


def start_light() -> None:
    """Has verl's trainer start load balancer and vLLM servers this way; call it in the process that starts them.

    Raises:
        RuntimeError: verl is another version than the one this was written for, or lacks what it replaces.
    """
    require_verl_version()
    balance_without_verl()
    serve_behind_light_handles()


def balance_without_verl() -> None:
    """Sends verl's load balancer by value: by name, a few counters cost 540 MB and seconds of imports."""
    from ray import cloudpickle
    from verl.workers.rollout import router

    if not inspect.isclass(getattr(router, "GlobalRequestLoadBalancer", None)):
        raise RuntimeError(
            f"{router.__name__} has no GlobalRequestLoadBalancer: balance_without_verl is for verl 0.9.1"
        )
    cloudpickle.register_pickle_by_value(router)


def serve_behind_light_handles() -> None:
    """Registers a vLLM replica whose servers' handles do not import vLLM where they arrive."""
    from verl.workers.rollout.replica import RolloutReplicaRegistry

    def load() -> Any:
        from codedance_verl.verl_compat.light_replica import LightHandleReplica

        return LightHandleReplica

    RolloutReplicaRegistry.register("vllm", load)


def imported_where_made(cls: type) -> type:
    """Returns a class with the methods of `cls` that imports `cls` when it is made, and is itself pickled by value.

    Methods are coroutine functions where those of `cls` are, as Ray decides by that how an actor runs. Properties and
    attributes stay with the inner object: a handle reaches methods alone.
    """
    module, name = cls.__module__, cls.__qualname__

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        import importlib  # in here, as the process that runs this need not have this module

        self._made = getattr(importlib.import_module(module), name)(*args, **kwargs)

    methods = {
        found: _forwarded(found, inspect.iscoroutinefunction(function))
        for found, function in inspect.getmembers(cls, inspect.isfunction)
        if not (found.startswith("__") and found.endswith("__"))
    }
    made = type(name, (), {"__init__": __init__, "__doc__": cls.__doc__, **methods})
    made.__module__ = __name__  # it is not found there, so that cloudpickle takes it by value
    return made


def _forwarded(name: str, is_coroutine: bool) -> Callable[..., Any]:
    async def asynchronous(self: Any, *args: Any, **kwargs: Any) -> Any:
        return await getattr(self._made, name)(*args, **kwargs)

    def synchronous(self: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(self._made, name)(*args, **kwargs)

    method = asynchronous if is_coroutine else synchronous
    method.__name__ = name
    return method
