"""Interventions and turns as a request asks for them, through the server and the loop."""

from __future__ import annotations

import asyncio
import base64
import io
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import openai
import pytest
from PIL import Image

from codedance_verl.environment.banned_strings import NEVER
from codedance_verl.serving.engine import Engine, Tokens
from codedance_verl.serving.server import listening
from tests.unit.environment.harness import Say, tokenizer
from tests.unit.serving.chats import CALL, MODEL, Running, ScriptedEngine, ScriptedPool, messages, service_of

CALL_TAG, ANSWER_TAG = "<code>", "<answer>"


class ObedientEngine(ScriptedEngine):
    """Says something else than the script where a request bans a string, as vLLM does under a bias."""

    async def sample(
        self, prompt_ids: list[int], params: dict[str, Any], images: Any, on_text: Callable[[str, list[int]], None]
    ) -> Any:
        text = None
        if CALL_TAG in params["stop"]:
            text = "<think>by eye</think><answer>5</answer>"
        elif ANSWER_TAG in params["stop"]:
            text = f"<think>a closer look</think>{CALL('show')}"
        if text is None:
            return await super().sample(prompt_ids, params, images, on_text)
        self.params.append(params)
        ids = Say(text).token_ids
        on_text(text, ids)
        return SimpleNamespace(token_ids=ids, log_probs=None, stop_reason="completed", extra_fields={})


def asked(word: str, extension: Any, stream: bool = False, **environment: Any) -> tuple[Any, list[dict[str, Any]]]:
    """The reply (the chunks of a stream) to a question, and the sampling parameters of its requests."""

    async def run() -> tuple[Any, list[dict[str, Any]]]:
        engine = ObedientEngine()
        async with listening(service_of(engine, ScriptedPool(), environment), None) as url:
            server = Running(url, engine, ScriptedPool())
            try:
                reply: Any = await server.client.chat.completions.create(
                    model=MODEL, messages=messages(word), stream=stream, extra_body={"codedance": extension}
                )
                return ([chunk async for chunk in reply] if stream else reply), engine.params
            finally:
                await server.client.close()

    return asyncio.run(run())


def message_of(word: str, extension: Any, **environment: Any) -> Any:
    return asked(word, extension, **environment)[0].choices[0].message


def test_without_tools_no_call_is_sampled_and_the_answer_comes_by_eye() -> None:
    reply, params = asked("look", {"control": "no_tools"})
    message = reply.choices[0].message
    assert (message.content, message.images) == ("5", [])
    assert message.codedance["control"] == "no_tools"
    assert [turn["execution"] for turn in message.codedance["turns"]] == [None]
    assert CALL_TAG in params[0]["stop"]
    assert message_of("look", None).content == "3 &lt; 4"


def test_forced_tools_ban_the_answer_in_the_first_turn_alone() -> None:
    reply, params = asked("look", {"control": "forced_tools"})
    message = reply.choices[0].message
    assert message.content == "3 &lt; 4"
    assert [turn["code"] for turn in message.codedance["turns"]] == ["show", None]
    assert [ANSWER_TAG in asked_for["stop"] for asked_for in params] == [True, False]


def test_grey_observations_come_back_grey_in_their_size() -> None:
    plain, grey = message_of("look", {}), message_of("look", {"control": "grey_observations"})
    (shown,), (seen,) = (
        [Image.open(io.BytesIO(base64.b64decode(part["image_url"]["url"].split(",")[1]))) for part in one.images]
        for one in (grey, plain)
    )
    assert shown.size == seen.size
    assert shown.convert("RGB").getcolors() == [(shown.width * shown.height, (128, 128, 128))]
    assert seen.convert("RGB").getcolors() != shown.convert("RGB").getcolors()
    assert plain.codedance["control"] is None


@pytest.mark.parametrize(("most", "finish", "cells"), [(1, "turn_limit", 0), (2, "turn_limit", 1), (3, "answer", 2)])
def test_turns_are_limited_by_the_request(most: int, finish: str, cells: int) -> None:
    found = message_of("twice", {"max_turns": most}).codedance
    assert (found["finish"], found["max_turns"]) == (finish, most)
    assert sum(turn["execution"] is not None for turn in found["turns"]) == cells
    last_shown = [turn["observation"] for turn in found["turns"] if turn["observation"]][-1:]
    assert all(("last turn" in text) for text in last_shown)


def test_a_stream_under_a_ban_has_nothing_that_is_taken_back() -> None:
    chunks, _ = asked("look", {"control": "forced_tools"}, stream=True)
    deltas = [chunk.choices[0].delta for chunk in chunks]
    reasoning = "".join(getattr(delta, "reasoning_content", "") for delta in deltas)
    assert reasoning == message_of("look", {"control": "forced_tools"}).reasoning_content
    assert deltas[-1].codedance["control"] == "forced_tools"


@pytest.mark.parametrize(
    ("extension", "told"),
    [
        ({"controll": "no_tools"}, r"unknown: codedance\.controll; control and max_turns are understood"),
        ({"control": "tools"}, r"codedance\.control must be one of grey_observations, no_tools, forced_tools, or null"),
        ({"control": ["no_tools"]}, r"codedance\.control must be one of"),
        ({"max_turns": 0}, r"codedance\.max_turns must be a whole number, at least 1"),
        ({"max_turns": True}, r"codedance\.max_turns must be a whole number"),
        ({"max_turns": 7}, r"codedance\.max_turns is 7; at most 6 are allowed \(environment\.max_turns\)"),
        ("no_tools", "codedance must be an object"),
    ],
)
def test_what_the_server_does_not_offer_is_refused(extension: Any, told: str) -> None:
    with pytest.raises(openai.BadRequestError, match=told) as raised:
        asked("look", extension)
    assert str(raised.value.param).startswith("codedance")


def test_a_fault_names_the_part_that_failed() -> None:
    with pytest.raises(openai.InternalServerError) as raised:
        asked("die", {})
    assert raised.value.body["fault"] == "sandbox"  # type: ignore[index]


def test_the_engine_bans_what_the_request_bans_beside_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[dict[str, Any]] = []

    class Client:
        async def generate(self, prompt: Any, params: Any, request_id: str) -> Any:
            given.append(vars(params))
            yield SimpleNamespace(outputs=[SimpleNamespace(token_ids=[7], text="x", finish_reason="stop")])

    stub = SimpleNamespace(SamplingParams=SimpleNamespace, TokensPrompt=dict)
    monkeypatch.setitem(sys.modules, "vllm", stub)
    outputs = SimpleNamespace(RequestOutputKind=SimpleNamespace(DELTA="delta"))
    monkeypatch.setitem(sys.modules, "vllm.sampling_params", outputs)
    engine = Engine(Client(), Tokens(tokenizer(), None, "", (5,), 100))

    async def both() -> None:
        await engine.sample([1], {"max_tokens": 4, "logit_bias": {9: NEVER}}, None, lambda text, ids: None)
        await engine.sample([1], {"max_tokens": 4}, None, lambda text, ids: None)

    asyncio.run(both())
    assert [params["logit_bias"] for params in given] == [{9: NEVER, 5: NEVER}, {5: NEVER}]
