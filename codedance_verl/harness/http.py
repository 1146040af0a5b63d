"""Transport to an endpoint over HTTP: JSON both ways, bounded in time, size and tries; no message shows the key."""

from __future__ import annotations

import asyncio
import email.utils
import json
import math
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from codedance_verl.errors import UserError
from codedance_verl.harness.faults import status_of
from codedance_verl.harness.reply import Overloaded, Unanswered
from codedance_verl.records.record import Status
from codedance_verl.runtime.text import visible

_SHOWN_CHARS = 300
_READ_BYTES = 4096
"""Of a reply that a message quotes: more than is shown, so that the cut leaves no part of a key."""

_REDACTED = "[key]"
_TRANSIENT = (408, 425)  # may be sent again by RFC 9110 and RFC 8470
_OVERLOADED = (429, 503)
_OF_THE_ENDPOINT = (401, 403, 404, 405)
"""Refusals that have nothing to do with what was asked."""


@dataclass(frozen=True)
class Endpoint:
    """Address of an OpenAI-compatible endpoint, and the bounds of a request to it.

    Attributes:
        url: base URL, such as `http://127.0.0.1:8300/v1`.
        api_key_env: environment variable with the key, which is sent where it is set; empty for none.
        at_once: questions in flight.
        reply_s: wall seconds of a request, from connecting to the last byte.
        connect_s: wall seconds of connecting.
        tries: of a request whose connection fails or whose server has an error of its own.
        pause_s: wall seconds before the second try; doubled for each further one.
        max_reply_mb: MiB of a reply.
    """

    url: str
    api_key_env: str = ""
    at_once: int = 16
    reply_s: float = 3600.0
    connect_s: float = 30.0
    tries: int = 3
    pause_s: float = 1.0
    max_reply_mb: int = 256

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UserError(
                f"--endpoint {visible(_public(self.url))[:200]}: give a URL such as http://127.0.0.1:8300/v1"
            )
        if parts.username or parts.password or parts.query:  # messages show the address
            raise UserError("--endpoint: the URL holds a key or a query; give the key by an environment variable")


class Refusal(Exception):
    """Refusal of a request that the endpoint finds at fault: a status from 400 on that asking again does not cure."""

    def __init__(self, status: int, message: str, code: str = "") -> None:
        super().__init__(f"HTTP {status}: {message}")
        self.status, self.message, self.code = status, message, code

    def unanswered(self) -> Unanswered:
        """Fault that goes on record."""
        return Unanswered(Status.ENDPOINT_FAILURE, str(self), of_item=self.status not in _OF_THE_ENDPOINT)


class _Trouble(Exception):
    """Failure that another try may not meet; `fault` is the part that a server of this project names."""

    def __init__(self, reason: str, fault: str = "") -> None:
        super().__init__(reason)
        self.fault = fault


class Transport:
    """Connections to one endpoint, of one event loop; get one from `opened`."""

    def __init__(self, endpoint: Endpoint, session: aiohttp.ClientSession, key: str) -> None:
        self.endpoint = endpoint
        self._session = session
        self._key = key

    @classmethod
    @asynccontextmanager
    async def opened(cls, endpoint: Endpoint, variables: Mapping[str, str] | None = None) -> AsyncIterator[Transport]:
        """Opens the transport, which closes with the block. Raises UserError: the key cannot be sent."""
        name = endpoint.api_key_env
        key = (os.environ if variables is None else variables).get(name, "") if name else ""
        if any(ord(sign) < 33 or ord(sign) > 126 for sign in key):  # a line break would end the header
            raise UserError(f"{name} holds blanks or characters that no key has; export the key alone")
        timeout = aiohttp.ClientTimeout(total=endpoint.reply_s, sock_connect=endpoint.connect_s)
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=endpoint.at_once),  # the default of 100 may be fewer
            cookie_jar=aiohttp.DummyCookieJar(),  # a balancer's cookie would bind all requests to one server
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=timeout,
        ) as session:
            yield cls(endpoint, session, key)

    async def get(self, path: str) -> dict[str, Any]:
        """Value of a GET below the base URL. Raises what `post` does."""
        return await self._until_reply("GET", path, None)

    async def post(self, path: str, body: Callable[[], bytes]) -> dict[str, Any]:
        """Value of a POST below the base URL; `body` encodes the JSON, in a thread.

        Raises:
            Overloaded: status 429 or 503; to be asked again later.
            Refusal: another status from 400 to 499, or a redirect.
            Unanswered: no usable reply in as many tries as there may be.
        """
        return await self._until_reply("POST", path, await asyncio.to_thread(body))

    async def _until_reply(self, method: str, path: str, body: bytes | None) -> dict[str, Any]:
        pause, last = self.endpoint.pause_s, _Trouble("no try was allowed")
        for number in range(self.endpoint.tries):
            if number:
                await asyncio.sleep(pause)
                pause *= 2
            try:
                return await self._send(method, path, body)
            except _Trouble as trouble:
                last = trouble
        raise Unanswered(status_of(None, last.fault), f"{last} (in {self.endpoint.tries} tries)")

    async def _send(self, method: str, path: str, body: bytes | None) -> dict[str, Any]:
        url = f"{self.endpoint.url.rstrip('/')}/{path}"
        headers = {} if body is None else {"Content-Type": "application/json"}
        try:
            # no redirects: the key and the question go to the endpoint that was named, and nowhere else
            async with self._session.request(
                method, url, data=body, headers=headers, allow_redirects=False
            ) as response:
                data = await self._bounded(response)
        except aiohttp.ServerTimeoutError:  # before `TimeoutError`, which it is too
            raise _Trouble(f"no connection within {self.endpoint.connect_s:g} s") from None
        except TimeoutError:  # further tries would take as long
            raise Unanswered(Status.ENDPOINT_FAILURE, f"no reply within {self.endpoint.reply_s:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise _Trouble(self._safe(f"{type(error).__name__}: {error}")) from None
        return await self._value(response, data)

    async def _bounded(self, response: aiohttp.ClientResponse) -> bytes:
        data, most = bytearray(), self.endpoint.max_reply_mb << 20
        async for chunk in response.content.iter_any():  # as it comes: Content-Length may be missing or wrong
            data += chunk
            if len(data) > most:
                raise Unanswered(Status.ENDPOINT_FAILURE, f"the reply is longer than {self.endpoint.max_reply_mb} MiB")
        return bytes(data)

    async def _value(self, response: aiohttp.ClientResponse, data: bytes) -> dict[str, Any]:
        status = response.status
        if status >= 300:  # redirects too, as none is followed
            raise self._failure(status, response.headers.get("Retry-After"), data)
        try:
            value = await asyncio.to_thread(json.loads, data)
        except (ValueError, RecursionError):
            raise _Trouble(f"the reply is no JSON: {self._safe(data[:_READ_BYTES].decode(errors='replace'))}") from None
        if not isinstance(value, dict):
            raise _Trouble("the reply is no JSON object")
        return value

    def _failure(self, status: int, retry_after: str | None, data: bytes) -> Exception:
        error = _error_of(data)
        message = self._safe(str(error.get("message") or data[:_READ_BYTES].decode(errors="replace")))
        code = self._safe(str(error.get("code") or ""))
        # the server of this project says so of one trajectory, which others do not suffer from
        if status in _OVERLOADED and code != "infrastructure":
            return Overloaded(f"HTTP {status}: {message}", _seconds(retry_after))
        if status >= 500 or status in _TRANSIENT:
            return _Trouble(f"HTTP {status}: {message}", str(error.get("fault") or ""))
        return Refusal(status, message, code)

    def _safe(self, text: str) -> str:
        """Text on one line, without the key and with its control characters replaced."""
        # before the cut, which might leave a part of the key
        text = text.replace(self._key, _REDACTED) if self._key else text
        return visible(" ".join(text.split()))[:_SHOWN_CHARS]


def _error_of(data: bytes) -> Mapping[str, Any]:
    """Error object of a reply in OpenAI's format; empty without one."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    error = value.get("error") if isinstance(value, dict) else None
    if isinstance(error, dict):
        return error
    # vLLM of some versions has the fields at the top, others a plain text
    if isinstance(value, dict) and isinstance(value.get("message"), str):
        return value
    return {"message": error} if isinstance(error, str) else {}


def _seconds(retry_after: str | None) -> float | None:
    """Value of the header, seconds or a date, as seconds from now; None without a usable one."""
    if not retry_after:
        return None
    try:
        seconds = float(retry_after)
        return seconds if 0 <= seconds < math.inf else None  # `float` also reads nan and inf
    except ValueError:
        pass
    try:
        return max(email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time(), 0.0)
    except (ValueError, TypeError, OverflowError):
        return None


def _public(url: str) -> str:
    """URL without a name and password in it."""
    head, at, tail = url.rpartition("@")  # the last one, since a password may hold another
    return f"{head.partition('://')[0]}://{_REDACTED}@{tail}" if at else url
