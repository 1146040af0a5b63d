"""Judge: a verdict on an open answer from the cache, from a request in flight, or from a server."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from codedance_verl.grading.judge.cache import VerdictCache, cache_key
from codedance_verl.grading.judge.client import JudgeClient
from codedance_verl.grading.judge.config import JudgeConfig
from codedance_verl.grading.judge.prompt import Question
from codedance_verl.grading.judge.stats import JudgeStats
from codedance_verl.grading.judge.verdict import Judgement, NoVerdict
from codedance_verl.metrics import catalogue, emit
from codedance_verl.types import Grade, Verdict

RULE = "judge"


class Judge:
    """Grades open answers. Equal ones that come at the same time share one request."""

    def __init__(self, config: JudgeConfig, cache_folder: Path | None = None) -> None:
        self.stats = JudgeStats()
        self.client = JudgeClient(config, self.stats)
        self._model = config.model
        self._cache = VerdictCache(config.cache_entries, cache_folder)
        self._in_flight: dict[str, asyncio.Task[Judgement]] = {}

    async def grade(self, question: Question) -> Grade:
        """Verdict of the judge; `UNGRADED`, with the reason, where there is none."""
        started = time.perf_counter()
        self.stats.asked += 1
        try:
            judgement = await self._judgement(question)
        except NoVerdict as reason:
            self.stats.no_verdict += 1
            emit.add(catalogue.JUDGE_ANSWERS, source="none")
            return Grade(Verdict.UNGRADED, RULE, str(reason))
        finally:
            waited_s = time.perf_counter() - started
            self.stats.wait_s += waited_s
            emit.observe(catalogue.JUDGE_SECONDS, waited_s)
        return Grade.of(judgement.correct, RULE, judgement.reason)

    async def close(self) -> None:
        """Cancels requests in flight and closes the connections."""
        for task in self._in_flight.values():
            task.cancel()
        await self.client.close()

    async def _judgement(self, question: Question) -> Judgement:
        key = cache_key(self._model, question)
        if (known := self._cache.get(key)) is not None:
            self.stats.cached += 1
            emit.add(catalogue.JUDGE_ANSWERS, source="cache")
            return known
        if is_first := key not in self._in_flight:
            self._in_flight[key] = asyncio.create_task(self._ask(key, question))
        else:
            self.stats.cached += 1
        # one who gives up waiting does not take it from the others
        judgement = await asyncio.shield(self._in_flight[key])
        emit.add(catalogue.JUDGE_ANSWERS, source="server" if is_first else "cache")
        return judgement

    async def _ask(self, key: str, question: Question) -> Judgement:
        try:
            judgement = await self.client.ask(question)
        finally:
            del self._in_flight[key]
        self._cache.put(key, judgement)
        return judgement
