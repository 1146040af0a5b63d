"""Replica of verl's for vLLM whose servers have light handles; a module of its own, as it imports vLLM."""

from __future__ import annotations

from typing import Any

import ray
from verl.workers.rollout.vllm_rollout.vllm_async_server import vLLMHttpServer, vLLMReplica

from codedance_verl.verl_compat.light_actors import imported_where_made


class LightHandleReplica(vLLMReplica):  # type: ignore[misc]
    """Replica that starts the same servers; a handle of one imports nothing where it arrives (see `light_actors`)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        chosen = getattr(getattr(self, "server_class", None), "__ray_metadata__", None)
        if chosen is None or not issubclass(chosen.modified_class, vLLMHttpServer):
            raise RuntimeError("vLLMReplica.server_class is no Ray class of vLLMHttpServer: this is for verl 0.9.1")
        self.server_class = ray.remote(imported_where_made(vLLMHttpServer))
