"""Transport of chat completions: retries over several OpenAI-compatible servers, with bounds on time and size.

The transport is aiohttp, which every rollout worker has loaded: the `openai` package would add 639 modules and 0.6 s to
the start, and a bound on the size of a reply, one on its whole time, and no redirects would still be written here.
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import logging
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from codedance_verl.grading.judge.config import JudgeConfig
from codedance_verl.grading.judge.endpoints import Endpoint, EndpointPool
from codedance_verl.grading.judge.stats import JudgeStats
from codedance_verl.metrics import catalogue, emit

logger = logging.getLogger(__name__)

# Bytes. A longer reply fails, so that a server cannot fill the memory of a worker.
MAX_REPLY_BYTES = 1 << 20

# A reply that reports more fails: sums of counts stay finite.
MAX_TOKENS_REPORTED = 1_000_000_000

JSON_OBJECT: Mapping[str, Any] = {"type": "json_object"}
"""Form of a reply that is one JSON object with whatever fields."""

# Statuses by which servers refuse `response_format`: the request is then sent without it.
_FORM_REFUSED = (400, 404, 415, 422, 501)
_FAULT_OF_REQUEST = (400, 413, 422)  # such as a text longer than the model takes


class NoCompletion(Exception):
    """Reason, in a few words, why there is no completion; `refused` where the servers find the request at fault."""

    def __init__(self, reason: str, refused: bool = False) -> None:
        super().__init__(reason)
        self.refused = refused


@dataclass(frozen=True)
class ChatRequest:
    """Chat completion that is asked for.

    Attributes:
        model: name of the model as the servers know it.
        messages: roles and texts, in order.
        max_tokens: longest reply in tokens.
        temperature, seed: sampling; no seed is sent where it is None.
        form: `response_format`, left out for servers that refuse its type; None for text of any form.
    """

    model: str
    messages: tuple[Mapping[str, str], ...]
    max_tokens: int
    temperature: float = 0.0
    seed: int | None = None
    form: Mapping[str, Any] | None = None

    def body(self, with_form: bool) -> dict[str, Any]:
        """Body of the HTTP request."""
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [dict(message) for message in self.messages],
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "n": 1,
        }
        if self.seed is not None:
            body["seed"] = self.seed
        if with_form and self.form is not None:
            body["response_format"] = dict(self.form)
        return body


@dataclass(frozen=True)
class Completion:
    """Reply of a server: its text, None where it has none, and whether that was cut at `max_tokens`."""

    text: str | None
    cut: bool
    endpoint: str


@dataclass
class Tries:
    """Tries at one question that are left, however many requests it takes.

    Attributes:
        left: further requests.
        trouble: what came last, for the message where nothing usable comes.
        refused_by: endpoints that have found the request at fault.
    """

    left: int
    trouble: str = "no endpoint was free in time"
    refused_by: set[str] = field(default_factory=set)


class _Failed(Exception):
    """Failure of an endpoint to give a usable reply; `retry_after_s` is the pause that it asked for, if it did."""

    def __init__(self, reason: str, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class _Refused(Exception):
    """Refusal of a request by the endpoint, which finds the request at fault."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class ChatTransport:
    """Sends chat completions to the endpoints of a judge. One instance serves one event loop; close it there."""

    def __init__(self, config: JudgeConfig, stats: JudgeStats | None = None) -> None:
        """Raises UserError: the key of the endpoints cannot be sent."""
        self._config = config
        self.stats = stats or JudgeStats()
        self.pool = EndpointPool(config.endpoints, config.first_pause_s, config.longest_pause_s)
        self._slots = asyncio.Semaphore(config.concurrency)
        self._headers = config.headers()
        self._session: aiohttp.ClientSession | None = None

    @asynccontextmanager
    async def tries(self) -> AsyncIterator[Tries]:
        """Yields `attempts` tries at one question, within `total_timeout_s` that include the wait for one of the slots.

        Raises:
            NoCompletion: the block did not end in time; says what came last.
        """
        tries = Tries(self._config.attempts)
        try:
            async with asyncio.timeout(self._config.total_timeout_s), self._slots:
                yield tries
        except TimeoutError:
            reason = f"no verdict within {self._config.total_timeout_s:g} s: {tries.trouble}"
            raise NoCompletion(reason) from None

    async def complete(self, request: ChatRequest, tries: Tries) -> Completion:
        """Completion by the endpoint with the fewest requests in flight, by another one where that fails.

        Raises:
            NoCompletion: no try is left, or the request is refused; says what came last.
        """
        while tries.left > 0:
            tries.left -= 1
            endpoint = await self.pool.take()
            try:
                completion = await self._reply(endpoint, request)
            except _Failed as failure:
                self.note(tries, endpoint.url, failure)
                self.pool.failed(endpoint, failure.retry_after_s)
            except _Refused as refusal:
                self.note(tries, endpoint.url, refusal)
                if self._is_final(endpoint, refusal, tries):
                    raise NoCompletion(tries.trouble, refused=True) from None
            except BaseException:
                self.pool.released(endpoint)
                raise
            else:
                self.pool.succeeded(endpoint)
                return completion
        raise NoCompletion(tries.trouble)

    def note(self, tries: Tries, endpoint: str, error: Exception) -> None:
        """Counts a request without a usable reply."""
        self.stats.failures += 1
        emit.add(catalogue.JUDGE_FAILURES)
        tries.trouble = str(error)
        logger.info("judge %s: %s", endpoint, error)

    async def close(self) -> None:
        """Closes the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _is_final(self, endpoint: Endpoint, refusal: _Refused, tries: Tries) -> bool:
        """True where no other endpoint can be expected to take the request; gives the endpoint back."""
        tries.refused_by.add(endpoint.url)
        if refusal.status in _FAULT_OF_REQUEST:
            self.pool.succeeded(endpoint)
            return True
        self.pool.failed(endpoint, self._config.longest_pause_s)
        return len(tries.refused_by) == len(self.pool.endpoints)

    async def _reply(self, endpoint: Endpoint, request: ChatRequest) -> Completion:
        """Sends the request, with the form of the reply where the server takes one of its type."""
        kind = request.form["type"] if request.form is not None else ""
        with_form = request.form is not None and kind not in endpoint.refused_forms
        try:
            return await self._send(endpoint, request, with_form)
        except _Refused as refusal:
            if not with_form or refusal.status not in _FORM_REFUSED:
                raise
        completion = await self._send(endpoint, request, with_form=False)
        endpoint.refused_forms.add(kind)  # without one it works
        return completion

    async def _send(self, endpoint: Endpoint, request: ChatRequest, with_form: bool) -> Completion:
        self.stats.requests += 1
        emit.add(catalogue.JUDGE_REQUESTS)
        url, body = f"{endpoint.url}/chat/completions", request.body(with_form)
        timeout = aiohttp.ClientTimeout(total=self._config.request_timeout_s)
        sent = self._opened().post(url, json=body, headers=self._headers, timeout=timeout, allow_redirects=False)
        try:
            async with sent as response:
                data = await _bounded(response)
                if response.status != 200:
                    raise _fault(response.status, response.headers.get("Retry-After"), data)
        except TimeoutError:
            raise _Failed(f"no reply within {self._config.request_timeout_s:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise _Failed(f"{type(error).__name__}: {error}"[:200]) from None
        return self._read(data, endpoint.url)

    def _read(self, data: bytes, endpoint: str) -> Completion:
        """Text of the reply; its tokens are counted, whatever it says."""
        try:
            body = json.loads(data)
            choice = body["choices"][0]
            text, cut = choice["message"]["content"], choice.get("finish_reason") == "length"
            usage = body.get("usage") or {}
            asked, written = _tokens(usage.get("prompt_tokens")), _tokens(usage.get("completion_tokens"))
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError, RecursionError):
            raise _Failed("the reply is no chat completion") from None
        self.stats.prompt_tokens += asked
        self.stats.completion_tokens += written
        cost = (asked * self._config.input_price + written * self._config.output_price) / 1e6
        self.stats.cost += cost
        emit.add(catalogue.JUDGE_TOKENS, asked, direction="read")
        emit.add(catalogue.JUDGE_TOKENS, written, direction="written")
        emit.add(catalogue.JUDGE_COST, cost)
        return Completion(text if isinstance(text, str) else None, cut, endpoint)

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=self._config.concurrency)
            self._session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
        return self._session


def _tokens(reported: Any) -> int:
    """Count of tokens that a reply reports, 0 without one."""
    count = int(reported or 0)
    if not 0 <= count <= MAX_TOKENS_REPORTED:
        raise ValueError(f"{count} tokens")
    return count


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    data = bytearray()  # as it arrives: Content-Length may be missing or wrong
    async for chunk in response.content.iter_any():
        data += chunk
        if len(data) > MAX_REPLY_BYTES:
            raise _Failed(f"the reply is longer than {MAX_REPLY_BYTES} bytes")
    return bytes(data)


def _fault(status: int, retry_after: str | None, data: bytes) -> Exception:
    reason = f"HTTP {status}: {' '.join(data[:200].decode(errors='replace').split())}"
    if status in (408, 425, 429) or status >= 500:
        return _Failed(reason, _seconds(retry_after))
    return _Refused(status, reason)


def _seconds(retry_after: str | None) -> float | None:
    """Value of the header, seconds or a date, as seconds from now; None without a usable one."""
    if not retry_after:
        return None
    try:
        return max(float(retry_after), 0.0) if float(retry_after) < float("inf") else None
    except ValueError:
        pass
    try:
        return max(email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time(), 0.0)
    except (ValueError, TypeError, OverflowError):
        return None
