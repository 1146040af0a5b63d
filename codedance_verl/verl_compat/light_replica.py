"""Replica of verl's for vLLM whose servers have light handles; a module of its own, as it imports vLLM."""

from __future__ import annotations

from typing import Any

import ray
from verl.workers.rollout.vllm_rollout.vllm_async_server import vLLMHttpServer, vLLMReplica

from codedance_verl.verl_compat.light_actors import imported_where_made
from codedance_verl.verl_compat.watching_server import WatchingServer


class LightHandleReplica(vLLMReplica):  # type: ignore[misc]
    """Replica whose servers have watches, and handles that import nothing where they arrive (see `light_actors`)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        chosen = getattr(getattr(self, "server_class", None), "__ray_metadata__", None)
        if chosen is None or not issubclass(chosen.modified_class, vLLMHttpServer):
            raise RuntimeError("vLLMReplica.server_class is no Ray class of vLLMHttpServer: this is for verl 0.9.1")
        self.server_class = ray.remote(imported_where_made(WatchingServer))

    @property
    def max_concurrency(self) -> int:
        """Calls that a server answers at once: of each request, and of the watch on it."""
        return 2 * int(super().max_concurrency)
