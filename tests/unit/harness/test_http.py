"""Transport against a server that refuses, fails, stalls and floods."""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from codedance_verl.errors import UserError
from codedance_verl.harness.http import Endpoint, Refusal, Transport
from codedance_verl.harness.reply import Overloaded, Unanswered
from codedance_verl.records.record import Status

KEY = "sk-verysecret"
Handler = Callable[[web.Request, int], Awaitable[web.StreamResponse]]


@contextlib.asynccontextmanager
async def served(handler: Handler, **bounds: Any) -> AsyncIterator[tuple[Transport, list[web.Request]]]:
    """Transport to a server of its own that answers by `handler`, which gets request and number, and its requests."""
    requests: list[web.Request] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        await request.read()
        requests.append(request)
        return await handler(request, len(requests))

    application = web.Application(client_max_size=1 << 26)
    application.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    try:
        endpoint = Endpoint(url, api_key_env="A_KEY", pause_s=0.001, **bounds)
        async with Transport.opened(endpoint, {"A_KEY": KEY}) as transport:
            yield transport, requests
    finally:
        await runner.cleanup()


def posted(handler: Handler, **bounds: Any) -> tuple[Any, list[web.Request]]:
    """Value or error of a request, and the requests that were made."""

    async def run() -> tuple[Any, list[web.Request]]:
        async with served(handler, **bounds) as (transport, requests), asyncio.timeout(30):
            try:
                return await transport.post("chat/completions", lambda: b'{"a": 1}'), requests
            except (Overloaded, Refusal, Unanswered) as error:
                return error, requests

    return asyncio.run(run())


def always(status: int, body: Any, **headers: str) -> Handler:
    async def answer(request: web.Request, number: int) -> web.Response:
        text = body if isinstance(body, str) else json.dumps(body)
        return web.Response(status=status, text=text, headers=headers)

    return answer


def test_a_value_comes_back_and_the_key_goes_in_the_header_alone() -> None:
    value, (request,) = posted(always(200, {"x": [1]}))
    assert value == {"x": [1]}
    assert request.path == "/v1/chat/completions" and request.headers["Authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7.0), ("", None), ("soon", None), ("-1", None), ("inf", None), ("nan", None)],
)
def test_too_much_to_do_is_said_with_the_pause_that_is_asked_for(
    status: int, header: str, seconds: float | None
) -> None:
    headers = {"Retry-After": header} if header else {}
    error, requests = posted(always(status, {"error": {"message": "later"}}, **headers))
    assert isinstance(error, Overloaded) and error.retry_after_s == seconds and "later" in error.reason
    assert len(requests) == 1, "the dispatcher asks again, not the transport"


def test_a_pause_may_be_a_date() -> None:
    when = email.utils.formatdate(time.time() + 100, usegmt=True)
    error, _ = posted(always(429, "", **{"Retry-After": when}))
    assert isinstance(error, Overloaded) and error.retry_after_s is not None and 90 < error.retry_after_s <= 100


@pytest.mark.parametrize("status", [400, 401, 404, 413, 307])
def test_a_refusal_is_not_repeated(status: int) -> None:
    error, requests = posted(always(status, {"error": {"message": "no such model", "code": "gone"}}, Location="/x"))
    assert isinstance(error, Refusal) and (error.status, error.code) == (status, "gone")
    assert error.unanswered().status is Status.ENDPOINT_FAILURE and "no such model" in error.unanswered().reason
    assert len(requests) == 1


def test_an_error_of_the_server_is_met_by_further_tries() -> None:
    async def third_time(request: web.Request, number: int) -> web.Response:
        return web.json_response({"ok": number}, status=500 if number < 3 else 200)

    value, _ = posted(third_time)
    assert value == {"ok": 3}
    error, requests = posted(always(502, "bad gateway"), tries=2)
    assert isinstance(error, Unanswered) and error.status is Status.ENDPOINT_FAILURE
    assert error.reason == "HTTP 502: bad gateway (in 2 tries)" and len(requests) == 2


def test_a_fault_of_the_sandbox_behind_the_server_is_counted_as_one() -> None:
    body = {"error": {"message": "ask again", "code": "infrastructure", "fault": "sandbox"}}
    error, requests = posted(always(503, body))
    assert isinstance(error, Unanswered) and error.status is Status.SANDBOX_FAULT and len(requests) == 3
    error, _ = posted(always(503, {"error": {**body["error"], "fault": "engine"}}))
    assert isinstance(error, Unanswered) and error.status is Status.ENDPOINT_FAILURE


def test_a_server_that_stalls_or_floods_is_left() -> None:
    async def stall(request: web.Request, number: int) -> web.Response:
        await asyncio.sleep(60)
        return web.Response()

    error, requests = posted(stall, reply_s=0.1)
    assert isinstance(error, Unanswered) and error.reason == "no reply within 0.1 s" and len(requests) == 1

    async def flood(request: web.Request, number: int) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(40):
            await response.write(b"x" * (1 << 20))
        return response

    error, requests = posted(flood, max_reply_mb=2)
    assert isinstance(error, Unanswered) and error.reason == "the reply is longer than 2 MiB" and len(requests) == 1


@pytest.mark.parametrize("body", ["", "[1]", "<html>", "[" * 100_000, "{"])
def test_what_is_no_json_object_is_no_reply(body: str) -> None:
    error, _ = posted(always(200, body), tries=1)
    assert isinstance(error, Unanswered) and "the reply is no JSON" in error.reason


@pytest.mark.parametrize("status", [400, 429, 500])
def test_no_message_shows_the_key_or_control_characters(status: int) -> None:
    error, _ = posted(always(status, {"error": {"message": f"bad key {KEY}\x1b[31m", "code": KEY}}), tries=1)
    said = f"{error} {getattr(error, 'reason', '')} {getattr(error, 'code', '')}"
    assert "verysecret" not in said and "\x1b" not in said and "[key]" in said
    long, _ = posted(always(status, "x" * 295 + KEY + "y" * 5000), tries=1)
    assert "sk-" not in str(long) and len(str(long)) < 400


def test_nothing_listens() -> None:
    async def run() -> None:
        endpoint = Endpoint("http://127.0.0.1:9/v1", tries=2, pause_s=0.001)
        async with Transport.opened(endpoint, {}) as transport:
            await transport.get("models")

    with pytest.raises(Unanswered, match="in 2 tries") as raised:
        asyncio.run(run())
    assert raised.value.status is Status.ENDPOINT_FAILURE


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8300", "ftp://host/v1", "http://", "http://me:pass@host/v1", "https://host/v1?key=pass"]
)
def test_an_address_that_is_none_or_holds_a_key_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(UserError) as raised:
        Endpoint(url)
    assert "pass" not in str(raised.value)


@pytest.mark.parametrize("key", ["two words", "line\nbreak", "schlüssel"])
def test_a_key_that_no_header_takes_is_refused_without_showing_it(key: str) -> None:
    async def run() -> None:
        async with Transport.opened(Endpoint("http://host/v1", api_key_env="A_KEY"), {"A_KEY": key}):
            pass

    with pytest.raises(UserError, match="A_KEY holds") as raised:
        asyncio.run(run())
    assert key not in str(raised.value)
