"""Client of the judge: retries a question over several OpenAI-compatible servers, within bounds of time.

The transport is aiohttp, which every rollout worker has loaded: the `openai` package would add 639 modules and 0.6 s to
the start, and a bound on the size of a reply, one on its whole time, and no redirects would still be written here.
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import logging
import time
from typing import Any

import aiohttp

from codedance_verl.grading.judge.config import JudgeConfig
from codedance_verl.grading.judge.endpoints import Endpoint, EndpointPool
from codedance_verl.grading.judge.prompt import VERDICT_SCHEMA, JudgePrompt, Question, make_prompt
from codedance_verl.grading.judge.stats import JudgeStats
from codedance_verl.grading.judge.verdict import Judgement, NoVerdict, read_verdict
from codedance_verl.metrics import catalogue, emit

logger = logging.getLogger(__name__)

# Bytes. A longer reply fails, so that a server cannot fill the memory of a worker.
MAX_REPLY_BYTES = 1 << 20

# A reply that reports more fails: sums of counts stay finite.
MAX_TOKENS_REPORTED = 1_000_000_000

# Replies that are no verdict before the question is given up: at temperature 0 the next is rarely different.
UNREADABLE_REPLIES = 2

# Statuses by which servers refuse `response_format`: the request is then sent without it.
_SCHEMA_REFUSED = (400, 404, 415, 422, 501)
_FAULT_OF_REQUEST = (400, 413, 422)  # such as a text longer than the model takes


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


# Text of a reply, and whether it was cut at `max_tokens`.
_Reply = tuple[object, bool]


class JudgeClient:
    """Asks the judge. One instance serves one event loop; close it there."""

    def __init__(self, config: JudgeConfig, stats: JudgeStats | None = None) -> None:
        self._config = config
        self.stats = stats or JudgeStats()
        self.pool = EndpointPool(config.endpoints, config.first_pause_s, config.longest_pause_s)
        self._slots = asyncio.Semaphore(config.concurrency)
        self._headers = config.headers()
        self._session: aiohttp.ClientSession | None = None

    async def ask(self, question: Question) -> Judgement:
        """Verdict of the judge.

        Raises:
            NoVerdict: none within `total_timeout_s` (queueing included) or `attempts`; says what came last.
        """
        trouble = ["no endpoint was free in time"]
        try:
            async with asyncio.timeout(self._config.total_timeout_s), self._slots:
                return await self._until_verdict(question, trouble)
        except TimeoutError:
            raise NoVerdict(f"no verdict within {self._config.total_timeout_s:g} s: {trouble[-1]}") from None

    async def close(self) -> None:
        """Closes the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _until_verdict(self, question: Question, trouble: list[str]) -> Judgement:
        unreadable, refused_by = 0, set[str]()
        for _ in range(self._config.attempts):
            endpoint = await self.pool.take()
            prompt = make_prompt(question)
            try:
                text, cut = await self._reply(endpoint, prompt)
            except _Failed as failure:
                self._note(trouble, endpoint, failure)
                self.pool.failed(endpoint, failure.retry_after_s)
                continue
            except _Refused as refusal:
                self._note(trouble, endpoint, refusal)
                refused_by.add(endpoint.url)
                if refusal.status in _FAULT_OF_REQUEST:
                    self.pool.succeeded(endpoint)
                    break
                self.pool.failed(endpoint, self._config.longest_pause_s)
                if len(refused_by) == len(self.pool.endpoints):
                    break
                continue
            except BaseException:
                self.pool.released(endpoint)
                raise
            self.pool.succeeded(endpoint)
            try:
                if cut:
                    raise NoVerdict("the judge's reply was cut at max_tokens")
                return read_verdict(text, prompt.case)
            except NoVerdict as fault:
                self._note(trouble, endpoint, fault)
                unreadable += 1
                if unreadable >= UNREADABLE_REPLIES:
                    break
        raise NoVerdict(trouble[-1])

    def _note(self, trouble: list[str], endpoint: Endpoint, error: Exception) -> None:
        self.stats.failures += 1
        emit.add(catalogue.JUDGE_FAILURES)
        trouble.append(str(error))
        logger.info("judge %s: %s", endpoint.url, error)

    async def _reply(self, endpoint: Endpoint, prompt: JudgePrompt) -> _Reply:
        """Sends the request, with a schema for the reply where the server takes one."""
        with_schema = endpoint.takes_schema
        try:
            return await self._send(endpoint, prompt, with_schema)
        except _Refused as refusal:
            if not with_schema or refusal.status not in _SCHEMA_REFUSED:
                raise
        reply = await self._send(endpoint, prompt, with_schema=False)
        endpoint.takes_schema = False  # without one it works
        return reply

    async def _send(self, endpoint: Endpoint, prompt: JudgePrompt, with_schema: bool) -> _Reply:
        self.stats.requests += 1
        emit.add(catalogue.JUDGE_REQUESTS)
        url, body = f"{endpoint.url}/chat/completions", self._body(prompt, with_schema)
        timeout = aiohttp.ClientTimeout(total=self._config.request_timeout_s)
        request = self._opened().post(url, json=body, headers=self._headers, timeout=timeout, allow_redirects=False)
        try:
            async with request as response:
                data = await _bounded(response)
                if response.status != 200:
                    raise _fault(response.status, response.headers.get("Retry-After"), data)
        except TimeoutError:
            raise _Failed(f"no reply within {self._config.request_timeout_s:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise _Failed(f"{type(error).__name__}: {error}"[:200]) from None
        return self._read(data)

    def _read(self, data: bytes) -> _Reply:
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
        return text, cut

    def _body(self, prompt: JudgePrompt, with_schema: bool) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self._config.model,
            "messages": list(prompt.messages),
            "temperature": 0,
            "max_tokens": self._config.max_tokens,
            "n": 1,
        }
        if with_schema:
            schema = {"name": "verdict", "strict": True, "schema": VERDICT_SCHEMA}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return body

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
