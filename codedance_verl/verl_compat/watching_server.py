"""vLLM server of verl's that also says when a request has sampled a tag; a module of its own, as it imports vLLM."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from verl.workers.rollout.vllm_rollout.vllm_async_server import vLLMHttpServer

from codedance_verl.environment.call_watch import TagSearch

MOST_WATCHES = 512
"""Most watches that wait at once, each in a call of its own; the next is answered at once that nothing was sampled."""
LONGEST_WATCH_S = 600.0
"""Longest wait of a watch: its request may take longer, may be over already, or may never arrive."""


class Watch:
    """Watch of one request; `sampled` is the answer."""

    def __init__(self, tag: str) -> None:
        self._search = TagSearch(tag)
        self.sampled: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def grown(self, text: str) -> None:
        """Receives all text so far."""
        if self._search.grown(text):
            self.answer(True)

    def answer(self, sampled: bool) -> None:
        """Answers the watch, unless it is answered."""
        if not self.sampled.done():
            self.sampled.set_result(sampled)


class WatchingServer(vLLMHttpServer):  # type: ignore[misc]  # verl ships no types
    """Server with watches of requests, which change none."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        require_server()
        super().__init__(*args, **kwargs)
        self._watches: dict[str, Watch] = {}

    async def run_server(self, args: Any) -> None:
        await super().run_server(args)
        self.engine.generate = functools.partial(watched, self.engine.generate, self._watches)

    async def has_sampled(self, request_id: str, tag: str) -> bool:
        """Returns whether a request samples the tag: true as soon as it has, false at its end.

        The request may arrive before or after this call. False at once beyond `MOST_WATCHES`, and after
        `LONGEST_WATCH_S`.
        """
        if (earlier := self._watches.pop(request_id, None)) is not None:  # a deterministic run names its turns alike
            earlier.answer(False)
        if len(self._watches) >= MOST_WATCHES:
            return False
        watch = self._watches[request_id] = Watch(tag)
        try:
            async with asyncio.timeout(LONGEST_WATCH_S):
                return await watch.sampled
        except TimeoutError:
            return False
        finally:
            if self._watches.get(request_id) is watch:
                del self._watches[request_id]

    async def generate(self, prompt_ids: Any, sampling_params: Any, request_id: str, *args: Any, **kwargs: Any) -> Any:
        try:
            return await super().generate(prompt_ids, sampling_params, request_id, *args, **kwargs)
        finally:
            if (watch := self._watches.get(request_id)) is not None:
                watch.answer(False)


def watched(
    generate: Callable[..., AsyncIterator[Any]], watches: Mapping[str, Watch], *args: Any, **request: Any
) -> AsyncIterator[Any]:
    """Returns the outputs of a request of vLLM, shown to its watch on their way, if it has one then.

    verl names all arguments. A request of another that does not is handed on as it is.
    """
    outputs = generate(*args, **request)
    return _shown(outputs, watches, request["request_id"]) if "request_id" in request else outputs


async def _shown(outputs: Any, watches: Mapping[str, Watch], request_id: str) -> AsyncIterator[Any]:
    async with contextlib.aclosing(outputs):
        async for output in outputs:
            # looked up at each output, which holds all text so far: a watch may arrive after its request
            if (watch := watches.get(request_id)) is not None:
                for part in output.outputs:  # none where the request was aborted
                    watch.grown(part.text)
            yield output


def require_server() -> None:
    """Raises where verl's server does not iterate over `self.engine.generate`, made in `run_server`."""
    if "self.engine.generate(" not in inspect.getsource(vLLMHttpServer.generate) or (
        "self.engine = engine_client" not in inspect.getsource(vLLMHttpServer.run_server)
    ):
        raise RuntimeError(
            "vLLMHttpServer of verl is not that of 0.9.1: adapt codedance_verl/verl_compat/watching_server.py"
        )
