"""Client of the judge: asks for a verdict on an answer, twice where the first reply is none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from codedance_verl.grading.judge.config import JudgeConfig
from codedance_verl.grading.judge.endpoints import EndpointPool
from codedance_verl.grading.judge.prompt import VERDICT_SCHEMA, JudgePrompt, Question, make_prompt
from codedance_verl.grading.judge.stats import JudgeStats
from codedance_verl.grading.judge.transport import ChatRequest, ChatTransport, NoCompletion, Tries
from codedance_verl.grading.judge.verdict import Judgement, NoVerdict, read_verdict

# Replies that are no verdict before the question is given up: at temperature 0 the next is rarely different.
UNREADABLE_REPLIES = 2

_FORM: Mapping[str, Any] = {
    "type": "json_schema",
    "json_schema": {"name": "verdict", "strict": True, "schema": VERDICT_SCHEMA},
}


class JudgeClient:
    """Asks the judge. One instance serves one event loop; close it there."""

    def __init__(self, config: JudgeConfig, stats: JudgeStats | None = None) -> None:
        self._config = config
        self._transport = ChatTransport(config, stats)

    @property
    def stats(self) -> JudgeStats:
        """Counts of requests, tokens and cost."""
        return self._transport.stats

    @property
    def pool(self) -> EndpointPool:
        """Endpoints and their state."""
        return self._transport.pool

    async def ask(self, question: Question) -> Judgement:
        """Verdict of the judge.

        Raises:
            NoVerdict: none within `total_timeout_s` (queueing included) or `attempts`; says what came last.
        """
        try:
            async with self._transport.tries() as tries:
                return await self._until_verdict(question, tries)
        except NoCompletion as reason:
            raise NoVerdict(str(reason)) from None

    async def close(self) -> None:
        """Closes the connections."""
        await self._transport.close()

    async def _until_verdict(self, question: Question, tries: Tries) -> Judgement:
        for _ in range(UNREADABLE_REPLIES):
            prompt = make_prompt(question)
            completion = await self._transport.complete(self._request(prompt), tries)
            try:
                if completion.cut:
                    raise NoVerdict("the judge's reply was cut at max_tokens")
                return read_verdict(completion.text, prompt.case)
            except NoVerdict as fault:
                self._transport.note(tries, completion.endpoint, fault)
        raise NoVerdict(tries.trouble)

    def _request(self, prompt: JudgePrompt) -> ChatRequest:
        return ChatRequest(self._config.model, prompt.messages, self._config.max_tokens, form=_FORM)
