"""verl's vLLM replica with servers whose handles are light; a module of its own, as it imports vLLM."""

from __future__ import annotations

from typing import Any

import ray
from verl.workers.rollout.vllm_rollout.vllm_async_server import vLLMHttpServer, vLLMReplica

from codedance_verl.verl_compat.light_actors import imported_where_made


class LightHandleReplica(vLLMReplica):  # type: ignore[misc]
    """Starts the same servers; whoever holds a handle of one imports nothing for it (see `light_actors`)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        chosen = getattr(getattr(self, "server_class", None), "__ray_metadata__", None)
        if chosen is None or not issubclass(chosen.modified_class, vLLMHttpServer):
            raise RuntimeError("vLLMReplica.server_class is no Ray class of vLLMHttpServer: this is for verl 0.9.1")
        self.server_class = ray.remote(imported_where_made(vLLMHttpServer))
