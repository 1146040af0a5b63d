"""Watches of requests at verl's vLLM servers: the client's half, which imports no vLLM (`watching_server` does).

verl 0.9.1 answers a request when it has ended. A watch is a call of its own, made right before the request, at the same
server; it is answered when the request has sampled the tag, or has ended. The request itself is what it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from types import SimpleNamespace
from typing import Any

from ray.exceptions import RayError
from verl.workers.rollout.llm_server import LLMServerClient

from codedance_verl.environment.call_watch import CallWatch


def watching(client: Any) -> WatchingClient | None:
    """Returns what sends verl's client's requests with watches, the same for the same client; None for another client.

    Raises:
        RuntimeError: verl's client is not as this was written for.
    """
    if not isinstance(client, LLMServerClient):
        return None
    hooked = getattr(client._acquire_server, "__self__", None)
    return hooked if isinstance(hooked, WatchingClient) else WatchingClient(client)


class WatchingClient:
    """Requests of verl's client with watches. A request that is resumed elsewhere is watched there too."""

    def __init__(self, client: Any) -> None:
        require_client()
        self._client = client
        self._acquire = client._acquire_server
        client._acquire_server = self._acquire_server
        self._watches: dict[str, CallWatch] = {}
        """By the request's id of verl's client, which is that of the trajectory."""
        self._waiting: dict[str, set[asyncio.Task[None]]] = {}

    async def generate(self, call_watch: CallWatch, request_id: str, **request: Any) -> Any:
        """Returns what verl's client returns."""
        self._watches[request_id] = call_watch
        self._waiting[request_id] = set()
        try:
            return await self._client.generate(request_id=request_id, **request)
        finally:
            del self._watches[request_id]
            for task in self._waiting.pop(request_id):
                task.cancel()

    async def _acquire_server(self, request_id: str, **extra: Any) -> tuple[str, Any]:
        server_id, server = await self._acquire(request_id, **extra)
        watch = self._watches.get(request_id)
        if watch is None:
            return server_id, server

        if not hasattr(server, "has_sampled"):
            raise RuntimeError("the vLLM server has no watches: it was not started by codedance_verl.verl_compat")

        def generate(**request: Any) -> Any:
            # as a rule in this order at the server too; Ray does not promise it, and a watch may come second
            told = server.has_sampled.remote(request["request_id"], watch.tag)
            self._waiting[request_id].add(asyncio.create_task(_report(told, watch)))
            return server.generate.remote(**request)

        return server_id, SimpleNamespace(generate=SimpleNamespace(remote=generate))


async def _report(told: Any, watch: CallWatch) -> None:
    with contextlib.suppress(RayError):  # the request is at the same server, and ends with that error too
        if await told:
            watch.seen()


def require_client() -> None:
    """Raises where verl's client does not send a request to the server that `_acquire_server` returns."""
    source = inspect.getsource(LLMServerClient.generate)
    if "= await self._acquire_server(" not in source or "await server.generate.remote(" not in source:
        raise RuntimeError(
            "LLMServerClient.generate of verl is not that of 0.9.1: adapt codedance_verl/verl_compat/call_watch.py, "
            "or set environment.open_early=false"
        )
