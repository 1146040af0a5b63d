"""HTTP server of OpenAI's chat completions over a `Service`, on loopback by default.

A client that disconnects cancels its request: aiohttp cancels the handler, which ends the trajectory.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import logging
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from aiohttp import web

from codedance_verl.runtime.loopback import names_loopback
from codedance_verl.serving.errors import RequestError
from codedance_verl.serving.identity import identity
from codedance_verl.serving.replies import Reply, pieces
from codedance_verl.serving.requests import ChatRequest, read_request
from codedance_verl.serving.service import Service

logger = logging.getLogger(__name__)

SHUTDOWN_SECONDS = 10.0
"""Time for requests in flight to end once the server is stopped."""

DECODERS = 4
"""Requests whose images are decoded at the same time; the next one waits."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Server:
    """Handlers of the routes, with counts of requests."""

    def __init__(self, service: Service, api_key: str | None) -> None:
        self._service = service
        self._api_key = api_key
        self._started = int(time.time())
        self._in_flight = 0
        self._answered = 0
        self._identity: dict[str, Any] | None = None
        self._identifying = asyncio.Lock()
        # Threads of their own rather than a semaphore: they stay busy with a request whose client has left.
        self._decoders = ThreadPoolExecutor(DECODERS, "decoder")

    def application(self) -> web.Application:
        """Returns the routes, with errors in OpenAI's format."""
        serving = self._service.settings.serving
        application = web.Application(
            client_max_size=serving.max_request_mb << 20, middlewares=[self._errors, self._admission]
        )
        application.router.add_get("/health", self._health)
        application.router.add_get("/v1/codedance", self._identify)
        application.router.add_get("/v1/models", self._models)
        application.router.add_get("/v1/models/{name:.+}", self._model)
        application.router.add_post("/v1/chat/completions", self._chat)
        return application

    @web.middleware
    async def _errors(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except web.HTTPRequestEntityTooLarge:
            largest = self._service.settings.serving.max_request_mb
            refusal = RequestError(f"the request is larger than {largest} MiB", status=413, code="request_too_large")
        except web.HTTPException as raised:
            refusal = RequestError(f"{request.method} {request.path}: {raised.reason}", status=raised.status)
        except ConnectionError:  # the client has left: there is nobody to reply to
            raise
        except Exception as raised:
            refusal = _refusal(raised)
        return web.json_response(refusal.body(), status=refusal.status)

    @web.middleware
    async def _admission(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Admits clients with the key; without a key those of this machine, but no page of a browser.

        A page of another site can reach loopback by a name of its own (DNS rebinding): the host it sends is that name.
        """
        if self._api_key is None:
            if not names_loopback(request.host):
                raise RequestError(f"unknown host {request.host}", status=403, code="unknown_host")
        elif request.path != "/health":  # a probe has no key, and learns nothing of the model
            given = request.headers.get("Authorization", "").removeprefix("Bearer ")
            # in constant time: an early mismatch must not show in the time of the reply
            if not hmac.compare_digest(given.encode(errors="surrogateescape"), self._api_key.encode()):
                raise RequestError("the API key is missing or wrong", status=401, code="invalid_api_key")
        return await handler(request)

    async def _health(self, request: web.Request) -> web.Response:
        try:
            await self._service.engine.check()
        except Exception as error:
            raise RequestError(f"vLLM is gone ({type(error).__name__})", status=503, code="engine_dead") from None
        return web.json_response(
            {"status": "ok", "requests_in_flight": self._in_flight, "requests_answered": self._answered}
        )

    def _description(self) -> dict[str, Any]:
        return {
            "id": self._service.settings.name,
            "object": "model",
            "created": self._started,
            "owned_by": "codedance-verl",
            "max_model_len": self._service.engine.tokens.max_model_len,
        }

    async def _identify(self, request: web.Request) -> web.Response:
        async with self._identifying:  # files are read once, whoever asks
            if self._identity is None:
                service = self._service
                self._identity = await asyncio.to_thread(identity, service.settings, service.engine.tokens)
        return web.json_response(self._identity)

    async def _models(self, request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [self._description()]})

    async def _model(self, request: web.Request) -> web.Response:
        self._check_model(request.match_info["name"])
        return web.json_response(self._description())

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        if (
            request.content_type != "application/json"
        ):  # a browser sends other types to other sites without a preflight request
            raise RequestError("the request must be application/json", status=415)
        # before the body is read: a refused request must cost no memory
        if self._in_flight >= self._service.settings.serving.max_requests:
            raise RequestError("too many requests at once; ask again later", status=429, code="rate_limit_exceeded")
        self._in_flight += 1
        started, end = time.perf_counter(), "failed"
        try:
            body = await request.read()
            service = self._service
            chat = await asyncio.get_running_loop().run_in_executor(
                self._decoders, read_request, body, service.special_tokens, service.bounds
            )
            self._check_model(chat.model)
            response = await (self._stream(request, chat) if chat.stream else self._whole(chat))
            self._answered += 1
            end = "answered"
            return response
        except RequestError as error:
            end = f"refused ({error.code or error.status})"
            raise
        except (asyncio.CancelledError, ConnectionError):
            end = "left by its client"
            raise
        finally:
            self._in_flight -= 1
            logger.info("request of %s %s after %.1f s", request.remote, end, time.perf_counter() - started)

    async def _whole(self, chat: ChatRequest) -> web.Response:
        async with contextlib.aclosing(pieces(self._service, chat)) as parts:
            return web.json_response(await Reply(self._service.settings.name, chat).whole(parts))

    async def _stream(self, request: web.Request, chat: ChatRequest) -> web.StreamResponse:
        """Sends server-sent events; an error that comes after the first one is an event too."""
        reply = Reply(self._service.settings.name, chat)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
        async with contextlib.aclosing(pieces(self._service, chat)) as parts:
            try:
                async for piece in parts:
                    if not response.prepared:  # only now: a request that does not fit is refused with its own status
                        await response.prepare(request)
                        await _send(response, reply.first())
                    for chunk in reply.chunks(piece):
                        await _send(response, chunk)
            except Exception as error:
                if not response.prepared or isinstance(error, ConnectionError):
                    raise
                await _send(response, _refusal(error).body())
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response

    def _check_model(self, name: str | None) -> None:
        """Raises `RequestError` for another model than ours; a client that names none means ours."""
        ours = self._service.settings.name
        if name is not None and name != ours:
            raise RequestError(
                f"there is no model {name!r} here, only {ours!r}", status=404, param="model", code="model_not_found"
            )


def _refusal(error: Exception) -> RequestError:
    """Returns the error for the client; an error of the server itself is logged, and its text kept from the client."""
    if isinstance(error, RequestError):
        return error
    logger.error("an error of the server", exc_info=error)
    return RequestError("an error of the server; its log says more", status=500, code="internal_error")


async def _send(response: web.StreamResponse, event: dict[str, Any]) -> None:
    await response.write(f"data: {json.dumps(event, ensure_ascii=False)}\n\n".encode())


@contextlib.asynccontextmanager
async def listening(service: Service, api_key: str | None) -> AsyncIterator[str]:
    """Serves for as long as the block lasts; yields the base URL for clients.

    Raises:
        OSError: the address cannot be listened on.
    """
    serving = service.settings.serving
    runner = web.AppRunner(
        Server(service, api_key).application(),
        handler_cancellation=True,
        shutdown_timeout=SHUTDOWN_SECONDS,
        access_log=None,
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, serving.host, serving.port, reuse_address=True)
        await site.start()
        port = runner.addresses[0][1]
        # an address that means all of them is none to connect to
        host = "127.0.0.1" if serving.host in ("0.0.0.0", "::") else serving.host
        yield f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"
    finally:
        await runner.cleanup()


async def until_signalled() -> None:
    """Waits for Ctrl-C or SIGTERM."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    await ended.wait()
