"""Model in this process: the service of `codedance serve` without its server."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

from codedance_verl.harness.config import EvalConfig
from codedance_verl.harness.faults import status_of
from codedance_verl.harness.image_urls import UNREADABLE, question_messages
from codedance_verl.harness.reply import ImageFolder, Question, Reply, Unanswered
from codedance_verl.harness.sampling import Sampling, defaults_of
from codedance_verl.records.key import Json
from codedance_verl.records.record import Status
from codedance_verl.serving.errors import RequestError
from codedance_verl.serving.identity import identity
from codedance_verl.serving.replies import content
from codedance_verl.serving.requests import ChatRequest, read_request
from codedance_verl.serving.service import Outcome, Service
from codedance_verl.serving.settings import Settings
from codedance_verl.trajectories.schema import ExecutionRecord, Timing, TurnRecord
from codedance_verl.types import Execution, Turn


@dataclass(frozen=True)
class LocalAnswerer:
    """Answers with a service of this process."""

    service: Service
    asked: EvalConfig
    described: dict[str, Json]

    @classmethod
    @contextlib.asynccontextmanager
    async def started(cls, settings: Settings, asked: EvalConfig) -> AsyncIterator[LocalAnswerer]:
        """Starts vLLM and interpreters, which end with the block. Raises UserError: one does not start."""
        if asked.max_turns is not None:
            settings = replace(settings, environment=settings.environment.replace(max_turns=asked.max_turns))
        async with Service.started(settings) as service:
            stated = await asyncio.to_thread(identity, settings, service.engine.tokens)
            described = {name: stated[name] for name in ("model", "prompt", "limits")}
            described["limits"] |= defaults_of(asked.temperature, stated)
            yield cls(service, asked, described)

    @property
    def most_at_once(self) -> int:
        settings = self.service.settings
        places = settings.sandbox.containers * settings.sandbox.sessions_per_container
        return min(settings.serving.engine.max_num_seqs, places, settings.serving.max_requests)

    def describe(self) -> dict[str, Json]:
        return self.described

    async def answer(self, question: Question, images: ImageFolder) -> Reply:
        """Reply of the service, to the request that a client of its server would send."""
        try:
            outcome = await self.service.answer(await asyncio.to_thread(self._request, question))
        except RequestError as error:
            status = status_of(error.code, error.fault)
            raise Unanswered(status, error.message, of_item=error.status < 500) from None
        except UNREADABLE as error:
            raise Unanswered(Status.IMAGE_UNREADABLE, f"{type(error).__name__}: {error}"[:300]) from None
        return await asyncio.to_thread(reply_of, outcome, images, self.service.settings.name)

    def _request(self, question: Question) -> ChatRequest:
        asked = self.asked
        sampling = Sampling(asked.temperature, asked.top_p, asked.seed)
        fields = sampling.fields(sampling.seed_of_sample(question.sample))
        body = json.dumps({"messages": question_messages(question), **fields}).encode()
        read = read_request(body, self.service.special_tokens, self.service.bounds)
        return replace(read, control=self.asked.service_control)


def reply_of(outcome: Outcome, images: ImageFolder, name: str) -> Reply:
    """Reply of a trajectory, whose images are kept. Raises OSError."""
    timing = outcome.timing
    return Reply(
        text=content(outcome),
        finish=outcome.finish,
        turns=tuple(_turn(turn, len(ids), images) for turn, ids in zip(outcome.turns, outcome.turn_ids, strict=True)),
        prompt_tokens=len(outcome.prompt_ids),
        completion_tokens=sum(map(len, outcome.turn_ids)),
        timing=Timing(timing.generate_s, timing.execute_s, timing.queue_s, timing.total_s, timing.observe_s),
        served_by=name,
    )


def _turn(turn: Turn, tokens: int, images: ImageFolder) -> TurnRecord:
    observation = turn.observation
    return TurnRecord(
        text=turn.text,
        code=turn.code,
        observation=None if observation is None else observation.text,
        execution=None if turn.execution is None else _execution(turn.execution, images),
        tokens=tokens,
        images_shown=None if observation is None else observation.images,
    )


def _execution(execution: Execution, images: ImageFolder) -> ExecutionRecord:
    return ExecutionRecord(**execution.as_record([images.keep(image.png) for image in execution.images]))
