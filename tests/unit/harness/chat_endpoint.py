"""Chat endpoint over real HTTP that says the turns of a script, and keeps what it was asked."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

Say = str | Mapping[str, Any] | web.Response | Callable[[Mapping[str, Any]], web.Response]


def completion(text: str | None, finish: str = "stop", tokens: int | None = 5, **fields: Any) -> web.Response:
    """Reply of an endpoint; `fields` of its choice, `message` those of its message."""
    message = {"role": "assistant", "content": text, **fields.pop("message", {})}
    usage = None if tokens is None else {"prompt_tokens": 11, "completion_tokens": tokens}
    choice = {"index": 0, "message": message, "finish_reason": finish, **fields}
    return web.json_response({"model": "vlm-2026", "choices": [choice], "usage": usage})


def refusal(status: int, message: str, **headers: str) -> web.Response:
    return web.json_response({"error": {"message": message}}, status=status, headers=headers)


@dataclass
class Scripted:
    """Endpoint that says what the script has next, and keeps what it was asked.

    `takes` are the fields that it accepts beside those of every request; None for all of them. `identity` is what it
    says where `codedance serve` states its own; None for no such page.
    """

    says: Sequence[Say]
    takes: frozenset[str] | None = None
    identity: web.Response | None = None
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)

    async def reply(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.keys.append(request.headers.get("Authorization"))
        extra = set(body) & {"stop", "include_stop_str_in_output", "max_tokens"}
        if self.takes is not None and (unknown := extra - self.takes):
            name = sorted(unknown)[0]
            hint = " use max_completion_tokens instead" if name == "max_tokens" else ""
            return refusal(400, f"unknown field {name};{hint}")
        said = self.says[len(self.bodies)]
        self.bodies.append(body)
        if callable(said):
            return said(body)
        return said if isinstance(said, web.Response) else completion(str(said))

    async def page(self, request: web.Request) -> web.Response:
        found = self.identity
        if found is None:
            raise web.HTTPNotFound
        return web.Response(status=found.status, body=found.body, content_type=found.content_type)


@contextlib.asynccontextmanager
async def running(endpoint: Scripted) -> AsyncIterator[str]:
    application = web.Application(client_max_size=1 << 26)
    application.router.add_post("/v1/chat/completions", endpoint.reply)
    application.router.add_get("/v1/codedance", endpoint.page)
    runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()
