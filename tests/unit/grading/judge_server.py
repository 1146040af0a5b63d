"""An OpenAI-compatible server on loopback that judges by a function and fails as it is told to."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

Reply = Callable[[dict[str, str], str], str]
"""Takes what is to be judged and the case number; returns the text of the reply."""


def verdict(case: str, word: str, **more: str) -> str:
    return json.dumps({"case": case, "reason": "so it is", "verdict": word, **more})


def honest(data: dict[str, str], case: str) -> str:
    """Correct where the answer holds the reference's words."""
    return verdict(case, "correct" if data["reference"] in data["answer"] else "wrong")


def parrot(data: dict[str, str], case: str) -> str:
    """A judge that does as the answer says: repeats it."""
    return data["answer"]


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one request.

    Attributes:
        status: HTTP status instead of 200.
        headers: sent with it.
        wait_s: before anything is sent.
        body: instead of a chat completion.
        cut: the connection is closed in the middle of the reply.
        text: the judge's words instead of a verdict.
        finish: why the judge stopped.
    """

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    wait_s: float = 0.0
    body: str | None = None
    cut: bool = False
    text: str | None = None
    finish: str = "stop"


@dataclass
class JudgeServer:
    """What the server saw, and how it behaves. `faults` are spent one a request, `always` applies to every one.

    `reply` answers what the grader asks; where `answer` is given, it answers every request by its body instead.
    """

    faults: list[Fault] = field(default_factory=list)
    always: Fault | None = None
    reply: Reply = honest
    answer: Callable[[dict[str, Any]], str | None] | None = None
    takes_schema: bool = True
    requests: list[dict[str, Any]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    most_at_once: int = 0
    _at_once: int = 0
    url: str = ""

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            return await self._behave(request, await request.json())
        finally:
            self._at_once -= 1

    async def _behave(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        self.requests.append(body)
        self.times.append(time.monotonic())
        self.headers.append(dict(request.headers))
        fault = self.faults.pop(0) if self.faults else self.always or Fault()
        await asyncio.sleep(fault.wait_s)
        if "response_format" in body and not self.takes_schema:
            return web.json_response({"error": "response_format is not supported"}, status=400)
        if fault.status != 200:
            return web.json_response({"error": "no"}, status=fault.status, headers=dict(fault.headers))
        if fault.cut:
            return await _cut(request)
        if fault.body is not None:
            return web.Response(text=fault.body)
        text = fault.text if fault.text is not None else self._text(body)
        return web.json_response(
            {
                "choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": fault.finish}],
                "usage": {"prompt_tokens": 100, "completion_tokens": 10},
            }
        )

    def _text(self, body: dict[str, Any]) -> str | None:
        return self.answer(body) if self.answer is not None else self.reply(*read_prompt(body))

    async def _models(self, _: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "judge"}]})

    def application(self) -> web.Application:
        application = web.Application()
        application.router.add_post("/v1/chat/completions", self._answer)
        application.router.add_get("/v1/models", self._models)
        return application


def read_prompt(body: dict[str, Any]) -> tuple[dict[str, str], str]:
    """What is to be judged, and the case number."""
    system, user = (message["content"] for message in body["messages"])
    first, data, last = user.split("\n")
    assert first == last and f"both read {first}" in system
    found = re.search(r'"case": "([0-9a-f]{8})"', system)
    assert found is not None
    return json.loads(data), found.group(1)


async def _cut(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b'{"choices": [{"mess')
    assert request.transport is not None
    request.transport.close()
    return response


@asynccontextmanager
async def serving(*servers: JudgeServer) -> AsyncIterator[Sequence[str]]:
    """Serve on free ports of loopback; yields the base URLs."""
    runners = []
    for server in servers:
        runner = web.AppRunner(server.application(), shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        server.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        runners.append(runner)
    try:
        yield [server.url for server in servers]
    finally:
        for runner in runners:
            await runner.cleanup()
