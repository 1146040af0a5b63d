"""Judge of official rules: requests that a rule makes, asked of a model until a reply can be read."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from codedance_verl.grading.judge.config import JudgeConfig
from codedance_verl.grading.judge.prompt import SYSTEM
from codedance_verl.grading.judge.stats import JudgeStats
from codedance_verl.grading.judge.transport import JSON_OBJECT, ChatRequest, ChatTransport, NoCompletion
from codedance_verl.harness.judge_replies import JudgeReply, ReplyCache, reply_key
from codedance_verl.harness.rule_calls import RuleCalls
from codedance_verl.tasks.item import JudgeRequest, Score
from codedance_verl.tasks.task import clipped

NO_JUDGE = "no judge is configured; name its servers in grading.judge.endpoints and score again"

NOT_ASKED = "the judge could not be asked"
"""Begins the reason of a score that an endpoint of the judge is at fault for, not a reply."""

MAX_STEPS = 16
"""Requests of one rule about one reply that follow from each other."""

MAX_FAULTS_IN_A_ROW = 64
"""Questions in a row that no endpoint answers, after which no more are asked: each may take minutes to fail."""

OURS_SHA256 = hashlib.sha256(SYSTEM.encode()).hexdigest()
"""Digest (hex) of the prompt by which the judge of this project's grader is asked."""


@dataclass(frozen=True)
class Judged:
    """Score by a judge, without a value where it gave none, and the digests of the prompts that it was asked with."""

    score: Score
    templates: frozenset[str]


class OfficialJudge:
    """Drives the requests of official rules. One instance serves one event loop; close it there.

    Callers bound how many run at once: a question that waits for others spends its `total_timeout_s`.
    """

    def __init__(self, config: JudgeConfig, calls: RuleCalls, folder: Path | None = None) -> None:
        """Keeps replies in the folder and reads from there what was asked before.

        Raises UserError: the key of the endpoints cannot be sent.
        """
        self.stats = JudgeStats()
        self._model = config.model
        self._transport = ChatTransport(config, self.stats)
        self._calls = calls
        self._cache = ReplyCache(folder)
        self._in_flight: dict[str, asyncio.Task[JudgeReply]] = {}
        self._faults_in_a_row = 0

    async def score(self, request: JudgeRequest) -> Judged:
        """Score that a request and those that follow from it lead to.

        It has no value, and a reason that begins with `NOT_ASKED`, where no endpoint replied.

        Raises:
            TimeoutError: reading a reply takes longer than a rule may.
            Exception: what the reading raises.
        """
        templates: set[str] = set()
        for _ in range(MAX_STEPS):
            templates.add(request.template_sha256)
            try:
                found = await self._read(request)
            except NoCompletion as fault:
                found = Score(None, request.failed.rule, reason=f"{NOT_ASKED}: {fault}")
            if isinstance(found, Score):
                self.stats.no_verdict += found.value is None
                return Judged(found, frozenset(templates))
            request = found
        reason = f"the rule asked more than {MAX_STEPS} questions about one reply"
        return Judged(Score(None, request.failed.rule, reason=reason), frozenset(templates))

    async def close(self) -> None:
        """Cancels requests in flight and closes the connections."""
        tasks = list(self._in_flight.values())  # a copy: each task takes itself out when it ends
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._transport.close()

    async def _read(self, request: JudgeRequest) -> Score | JudgeRequest:
        """Reading of the first usable reply, else `failed`. Raises NoCompletion: there is no reply at all."""
        max_tokens = request.max_tokens
        for attempt in range(request.attempts):
            reply = await self._reply(_chat(request, self._model, max_tokens), attempt)
            if reply.text is not None and not reply.cut:
                found = await self._calls.call(request.read, reply.text)
                if found is not None:
                    return found
            self.stats.failures += 1
            # a request may state `most_tokens` below what it begins with: the bound never falls
            max_tokens = max(max_tokens, min(max_tokens * 2, request.most_tokens))
        return request.failed

    async def _reply(self, chat: ChatRequest, attempt: int) -> JudgeReply:
        """Reply from the cache, from an equal request in flight, or from a server."""
        self.stats.asked += 1
        key = reply_key(chat, attempt)
        if (known := self._cache.get(key)) is not None:
            self.stats.cached += 1
            return known
        if key in self._in_flight:
            self.stats.cached += 1
        else:
            self._in_flight[key] = asyncio.create_task(self._ask(key, chat))
        started = time.perf_counter()
        try:
            # one who gives up waiting does not take it from the others
            return await asyncio.shield(self._in_flight[key])
        finally:
            self.stats.wait_s += time.perf_counter() - started

    async def _ask(self, key: str, chat: ChatRequest) -> JudgeReply:
        try:
            if self._faults_in_a_row >= MAX_FAULTS_IN_A_ROW:
                raise NoCompletion(f"its endpoints failed {MAX_FAULTS_IN_A_ROW} questions in a row")
            async with self._transport.tries() as tries:
                completion = await self._transport.complete(chat, tries)
        except NoCompletion as fault:
            # a request that is refused, such as one that is too long, says nothing about the next one
            self._faults_in_a_row += not fault.refused
            raise
        finally:
            # no await between here and `put`: nobody can ask for the same reply once more
            del self._in_flight[key]
        self._faults_in_a_row = 0
        reply = JudgeReply(_plain(completion.text), completion.cut)
        self._cache.put(key, reply)
        return reply


def without_judge(request: JudgeRequest) -> Score:
    """Score of a request where no judge is configured."""
    return Score(None, request.failed.rule, reason=NO_JUDGE)


def judge_name(model: str, templates: Iterable[str]) -> str:
    """Name of a judge in reports: model, and the first 12 digits of the digest of its prompt.

    Args:
        model: as the servers know it.
        templates: digests (hex) of the prompts' fixed parts (`template_sha256`); of several, one over all is given.
    """
    digests = sorted(set(templates))
    if not digests:
        return f"{model} (not asked)"
    joined = digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
    prompts = "prompt" if len(digests) == 1 else f"{len(digests)} prompts"
    return f"{model} ({prompts} {joined[:12]})"


def _chat(request: JudgeRequest, model: str, max_tokens: int) -> ChatRequest:
    system = [{"role": "system", "content": request.system}] if request.system else []
    return ChatRequest(
        model=model,
        messages=(*system, {"role": "user", "content": request.prompt}),
        max_tokens=max_tokens,
        temperature=request.temperature,
        seed=request.seed,
        form=JSON_OBJECT if request.json_reply else None,
    )


def _plain(text: str | None) -> str | None:
    """Text as it is kept: bounded in length as replies of models are, and without halves of surrogate pairs."""
    return None if text is None else clipped(text).encode("utf-8", "replace").decode()
