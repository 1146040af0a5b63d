"""Teacher of a synthesis: one model, asked with tools in the environment's loop and without them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace

from codedance_verl.errors import UserError
from codedance_verl.harness import answerers
from codedance_verl.harness.reply import Answerer, ImageFolder, Question, Reply
from codedance_verl.harness.settings import EvalSettings
from codedance_verl.harness.ways import Way, Ways, both_ways
from codedance_verl.records.key import Json


@dataclass(frozen=True)
class Numbered:
    """Answerer whose replies are those of sample `number`: each round of a question is drawn by a seed of its own."""

    answerer: Answerer
    number: int

    @property
    def most_at_once(self) -> int:
        return self.answerer.most_at_once

    def describe(self) -> dict[str, Json]:
        return self.answerer.describe()

    async def answer(self, question: Question, images: ImageFolder) -> Reply:
        return await self.answerer.answer(replace(question, sample=self.number), images)


def check_teacher(settings: EvalSettings) -> None:
    """Raises UserError: the settings ask for something else than trajectories in the environment as it is."""
    asked = settings.evaluation
    if asked.loop == "plain":
        raise UserError("eval.loop=plain: a teacher runs code; leave it out")
    if asked.control is not None:
        raise UserError(f"eval.control={asked.control}: demonstrations are made without interventions; leave it out")
    if asked.samples != 1:
        raise UserError(f"eval.samples={asked.samples}: set --direct and --tries instead")
    if asked.score_only:
        raise UserError("eval.score_only=true: --no-ask checks what is on record")


@contextlib.asynccontextmanager
async def teachers(settings: EvalSettings, tell: Callable[[str], None], direct: bool) -> AsyncIterator[Ways]:
    """Starts the model, which ends with the block; a model of this process once for both ways.

    Args:
        settings: of the model, as `codedance eval` takes it.
        tell: gets lines on the loop of an endpoint.
        direct: whether it is asked without tools too.

    Raises UserError: it does not start, or nothing answers there.
    """
    if direct:
        async with both_ways(settings, tell) as ways:
            yield ways
        return
    async with answerers.started(settings, tell) as tools:
        yield Ways(Way(tools, settings), Way(tools, settings))
