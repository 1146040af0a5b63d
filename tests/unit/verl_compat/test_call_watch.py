"""verl's own client of the vLLM servers, with watches; balancer and servers are stand-ins for actors."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf
from ray.exceptions import ActorDiedError
from verl.workers.rollout import llm_server
from verl.workers.rollout.llm_server import FullyAsyncLLMServerClient, LLMServerClient
from verl.workers.rollout.replica import TokenOutput

from codedance_verl.environment.call_watch import CallWatch
from codedance_verl.verl_compat import call_watch
from tests.unit.environment.harness import Script, loop_of

CONFIG = OmegaConf.create({"actor_rollout_ref": {"rollout": {"name": "vllm"}}})


def remote(function: Any) -> Any:
    """A method as a handle of an actor has it: the call is begun at once."""
    return SimpleNamespace(remote=lambda *args, **kwargs: asyncio.ensure_future(function(*args, **kwargs)))


class Server:
    """Answers requests with outputs in order; every watch with what `tells` says, an exception is raised."""

    def __init__(self, outputs: list[TokenOutput], tells: list[bool | Exception]) -> None:
        self._outputs, self._tells = outputs, tells
        self.calls: list[tuple[str, str]] = []
        self.generate, self.has_sampled = remote(self._generate), remote(self._has_sampled)

    async def _has_sampled(self, request_id: str, tag: str) -> bool:
        self.calls.append((f"watch {tag}", request_id))
        tells = self._tells.pop(0)
        if isinstance(tells, Exception):
            raise tells
        return tells

    async def _generate(self, request_id: str, **_: Any) -> TokenOutput:
        self.calls.append(("request", request_id))
        await asyncio.sleep(0.01)  # a watch is answered meanwhile
        return self._outputs.pop(0)


async def ready(value: Any) -> Any:
    return value


def client_of(server: Server, kind: type[LLMServerClient] = LLMServerClient) -> Any:
    balancer = SimpleNamespace(
        require_acquire_fields=remote(lambda: ready([])),
        require_release_fields=remote(lambda: ready([])),
        acquire_server=remote(lambda **_: ready(("a", server))),
        release_server=remote(lambda **_: ready(None)),
    )
    return kind(CONFIG, balancer)


def output(*tokens: int, stop_reason: str = "completed") -> TokenOutput:
    return TokenOutput(token_ids=list(tokens), log_probs=[-1.0] * len(tokens), stop_reason=stop_reason)


async def send(client: Any, watch: CallWatch | None) -> Any:
    request: dict[str, Any] = {
        "request_id": "t",
        "prompt_ids": [1],
        "sampling_params": {"max_tokens": 9},
        "image_data": None,
    }
    if watch is None:
        return await client.generate(**request)
    watching = call_watch.watching(client)
    assert watching is not None and call_watch.watching(client) is watching
    return await watching.generate(watch, **request)


def test_a_watch_goes_to_the_server_of_its_request_right_before_it_and_reports() -> None:
    async def run() -> None:
        seen: list[int] = []
        server = Server([output(5, 6), output(7)], [True])
        client = client_of(server)
        answer = await send(client, CallWatch("<code>", lambda: seen.append(1)))
        assert answer.token_ids == [5, 6] and seen == [1]
        (first, watched), (second, sent) = server.calls
        assert (first, second) == ("watch <code>", "request") and watched == sent
        # the same client without a watch asks for nothing more
        assert (await send(client, None)).token_ids == [7]
        assert [name for name, _ in server.calls[2:]] == ["request"]

    asyncio.run(run())


@pytest.mark.parametrize("told", [False, ActorDiedError()], ids=["not sampled", "the server is lost"])
def test_nothing_is_reported_of_a_request_that_samples_no_tag(told: Any) -> None:
    async def run() -> None:
        seen: list[int] = []
        answer = await send(client_of(Server([output(5)], [told])), CallWatch("<code>", lambda: seen.append(1)))
        assert answer.token_ids == [5] and seen == []

    asyncio.run(run())


def test_a_request_that_a_weight_update_aborts_is_watched_again_where_it_is_resumed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def at_once(_: float) -> None:
        """The pause before a request is resumed."""

    async def run() -> None:
        seen: list[int] = []
        server = Server([output(5, stop_reason="aborted"), output(6)], [False, True])
        client = client_of(server, FullyAsyncLLMServerClient)
        monkeypatch.setattr(llm_server, "asyncio", SimpleNamespace(sleep=at_once, gather=asyncio.gather))
        answer = await send(client, CallWatch("<code>", lambda: seen.append(1)))
        assert answer.token_ids == [5, 6] and seen == [1]
        assert [name for name, _ in server.calls] == ["watch <code>", "request"] * 2

    asyncio.run(run())


def test_another_client_is_not_watched() -> None:
    assert call_watch.watching(SimpleNamespace()) is None


def test_another_verl_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async def generate(self: Any, request_id: str) -> None:
        """Sends a request in another way."""

    monkeypatch.setattr(LLMServerClient, "generate", generate)
    with pytest.raises(RuntimeError, match=r"not that of 0\.9\.1: .*or set environment\.open_early=false"):
        call_watch.require_client()


def test_without_early_opening_another_verl_is_used_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    async def generate(self: Any, request_id: str) -> None:
        """Sends a request in another way."""

    monkeypatch.setattr(LLMServerClient, "generate", generate)
    client = client_of(Server([], []))
    loop_of(Script([], environment={"open_early": False}), client)
    assert client._acquire_server.__self__ is client
    with pytest.raises(RuntimeError, match=r"or set environment\.open_early=false"):
        loop_of(Script([], environment={"open_early": True}), client)
