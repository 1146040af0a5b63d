"""verl's own server with watches, whichever of request and watch comes first; its engine is a stand-in for vLLM's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf

pytestmark = pytest.mark.slow  # it imports vLLM

TAG = "<code>"
CONFIG = OmegaConf.create(
    {"max_model_len": 99, "full_determinism": False, "enable_rollout_routing_replay": False, "mtp": None}
)


class Engine:
    """Says a text piece by piece, each when the test releases it; an output holds all text so far, as vLLM's does."""

    def __init__(self, pieces: Sequence[str]) -> None:
        self._pieces = pieces
        self._released = asyncio.Semaphore(0)

    async def release(self, pieces: int = 1) -> None:
        for _ in range(pieces):
            self._released.release()
        await settle()

    async def generate(self, **_: Any) -> AsyncIterator[Any]:
        for number in range(1, len(self._pieces) + 1):
            await self._released.acquire()
            reason = "stop" if number == len(self._pieces) else None
            part = {"text": "".join(self._pieces[:number]), "token_ids": [7] * number, "finish_reason": reason}
            yield SimpleNamespace(outputs=[SimpleNamespace(**part)])


async def settle() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A server whose `generate` is verl's, and which runs the engine that `run_server` is given."""
    from verl.workers.rollout.vllm_rollout.vllm_async_server import vLLMHttpServer

    from codedance_verl.verl_compat.watching_server import WatchingServer

    def __init__(self: Any) -> None:
        self._disaggregation_role, self.replica_rank, self.global_steps = "null", 0, 1
        self._submission_paused, self._admitting = False, 0
        self.config, self.model_config = CONFIG, SimpleNamespace(processor=None, lora_rank=0, lora={})

    async def run_server(self: Any, engine_client: Any) -> None:
        self.engine = engine_client

    monkeypatch.setattr(vLLMHttpServer, "__init__", __init__)
    monkeypatch.setattr(vLLMHttpServer, "run_server", run_server)
    return WatchingServer()


async def sent(server: Any, request_id: str = "a") -> asyncio.Task[Any]:
    """The request, which has begun."""
    task = asyncio.create_task(server.generate([1], {"max_tokens": 9}, request_id))
    await settle()
    return task


async def watched(server: Any, request_id: str = "a") -> asyncio.Task[bool]:
    """The watch, which waits or is answered."""
    task = asyncio.create_task(server.has_sampled(request_id, TAG))
    await settle()
    return task


def test_a_watch_before_its_request_is_answered_as_soon_as_the_tag_is_whole(server: Any) -> None:
    async def run() -> None:
        engine = Engine(["<think>", "<co", "de>", "print", "</code>"])
        await server.run_server(engine)
        watch, request = await watched(server), await sent(server)
        await engine.release(2)
        assert not watch.done()
        await engine.release()
        assert watch.result() and not request.done()
        await engine.release(2)
        assert request.result().token_ids == [7] * 5

    asyncio.run(run())


@pytest.mark.parametrize("said", [0, 1, 3], ids=["nothing yet", "some text", "the tag"])
def test_a_watch_after_its_request_is_answered_while_that_goes_on(said: int, server: Any) -> None:
    async def run() -> None:
        engine = Engine(["<think>", "<co", "de>", "print", "</code>"])
        await server.run_server(engine)
        request = await sent(server)
        await engine.release(said)
        watch = await watched(server)
        assert not watch.done()
        await engine.release(4 - said)
        assert watch.result() and not request.done()
        await engine.release()
        assert request.result().token_ids == [7] * 5

    asyncio.run(run())


@pytest.mark.parametrize("is_first", [True, False], ids=["watch first", "request first"])
def test_a_watch_of_a_request_without_the_tag_ends_with_it(is_first: bool, server: Any) -> None:
    async def run() -> None:
        engine = Engine(["4", "2"])
        await server.run_server(engine)
        if is_first:
            watch, request = await watched(server), await sent(server)
        else:
            request, watch = await sent(server), await watched(server)
        await engine.release()
        assert not watch.done()
        await engine.release()
        assert request.result().stop_reason == "completed" and watch.result() is False

    asyncio.run(run())


def test_watches_that_wait_are_bounded(server: Any) -> None:
    from codedance_verl.verl_compat.watching_server import MOST_WATCHES

    async def run() -> None:
        engine = Engine(["42"])
        await server.run_server(engine)
        waiting = [asyncio.create_task(server.has_sampled(f"{number}", TAG)) for number in range(MOST_WATCHES)]
        await settle()
        assert (await watched(server, "one more")).result() is False
        assert not any(task.done() for task in waiting)
        await sent(server, "0")
        await engine.release()
        assert [task.done() for task in waiting] == [True] + [False] * (MOST_WATCHES - 1)
        assert not (await watched(server, "one more")).done()  # there is a place again

    asyncio.run(run())


def test_a_watch_whose_request_is_over_waits_for_a_bounded_time(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from codedance_verl.verl_compat import watching_server

    monkeypatch.setattr(watching_server, "LONGEST_WATCH_S", 0.01)

    async def run() -> None:
        assert await server.has_sampled("a", TAG) is False
        assert server._watches == {}

    asyncio.run(run())


def test_a_second_watch_of_the_same_name_takes_the_place_of_the_first(server: Any) -> None:
    async def run() -> None:
        engine = Engine(["42"])
        await server.run_server(engine)
        first, second = await watched(server), await watched(server)
        assert first.result() is False and not second.done()
        await sent(server)
        await engine.release()
        assert second.result() is False and server._watches == {}

    asyncio.run(run())
