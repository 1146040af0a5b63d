"""Chat completions of any caller: bodies, forms of the reply, bounds on the tries at one question."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from codedance_verl.grading.judge.config import JudgeConfig
from codedance_verl.grading.judge.transport import JSON_OBJECT, ChatRequest, ChatTransport, Completion, NoCompletion
from tests.unit.grading.judge_server import Fault, JudgeServer, serving

MESSAGES = ({"role": "system", "content": "s"}, {"role": "user", "content": "u"})
PLAIN = ChatRequest("model", MESSAGES, 64)


def completions(
    server: JudgeServer, requests: Sequence[ChatRequest], **settings: object
) -> tuple[list[Completion], ChatTransport]:
    """Completions of requests about one question."""

    async def run() -> tuple[list[Completion], ChatTransport]:
        async with serving(server) as urls:
            quick = {"first_pause_s": 0.01, "longest_pause_s": 0.05, "request_timeout_s": 1.0, "total_timeout_s": 5.0}
            transport = ChatTransport(
                JudgeConfig.from_mapping({"endpoints": list(urls), "model": "configured", **quick, **settings})
            )
            try:
                async with transport.tries() as tries:
                    return [await transport.complete(request, tries) for request in requests], transport
            finally:
                await transport.close()

    return asyncio.run(run())


def text(body: dict[str, Any]) -> str:
    return "hello"


def test_a_request_is_sent_as_it_is_given() -> None:
    server = JudgeServer(answer=text)
    request = ChatRequest("another", MESSAGES, 99, temperature=0.7, seed=3, form=JSON_OBJECT)
    (found, plain), _ = completions(server, [request, PLAIN])
    assert (found.text, found.cut, found.endpoint) == ("hello", False, server.url) and plain.text == "hello"
    first, second = server.requests
    expected = {"model": "another", "messages": list(MESSAGES), "max_tokens": 99, "temperature": 0.7, "n": 1, "seed": 3}
    assert first == expected | {"response_format": {"type": "json_object"}}
    assert "seed" not in second and "response_format" not in second and second["temperature"] == 0


def test_a_reply_that_was_cut_says_so() -> None:
    (found,), _ = completions(JudgeServer(always=Fault(text="he", finish="length")), [PLAIN])
    assert (found.text, found.cut) == ("he", True)


def test_a_form_that_is_refused_leaves_others_to_be_tried() -> None:
    server = JudgeServer(answer=text, takes_schema=False)
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}
    forms = [JSON_OBJECT, JSON_OBJECT, schema]
    _, transport = completions(server, [ChatRequest("m", MESSAGES, 64, form=form) for form in forms])
    sent = [body.get("response_format", {}).get("type", "") for body in server.requests]
    assert sent == ["json_object", "", "", "json_schema", ""]
    assert transport.pool.endpoints[0].refused_forms == {"json_object", "json_schema"}


def test_tries_are_those_of_the_question() -> None:
    server = JudgeServer(answer=text, faults=[Fault(status=500), Fault(status=500)])
    with pytest.raises(NoCompletion, match="HTTP 500") as caught:
        completions(server, [PLAIN, PLAIN], attempts=3)
    assert len(server.requests) == 3 and not caught.value.refused


def test_a_refusal_is_told_from_a_failure() -> None:
    with pytest.raises(NoCompletion, match="HTTP 413") as caught:
        completions(JudgeServer(always=Fault(status=413)), [PLAIN])
    assert caught.value.refused


def test_time_is_that_of_the_question() -> None:
    with pytest.raises(NoCompletion, match=r"within 1 s: no reply within 0\.1 s"):
        completions(
            JudgeServer(always=Fault(wait_s=3)), [PLAIN], request_timeout_s=0.1, total_timeout_s=1.0, attempts=20
        )
