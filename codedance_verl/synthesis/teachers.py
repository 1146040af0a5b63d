"""Teacher of a synthesis: one model, asked with tools in the environment's loop and without them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace

from codedance_verl.data.conditions import Control
from codedance_verl.errors import UserError
from codedance_verl.harness import answerers
from codedance_verl.harness.chat_answerer import ChatAnswerer
from codedance_verl.harness.reply import Answerer, ImageFolder, Question, Reply
from codedance_verl.harness.settings import EvalSettings
from codedance_verl.records.key import Json


@dataclass(frozen=True)
class Teacher:
    """Model under one of its two ways of being asked, with the settings that the key of its records is made of."""

    answerer: Answerer
    settings: EvalSettings


@dataclass(frozen=True)
class Teachers:
    """The same model without tools and with them."""

    direct: Teacher
    tools: Teacher


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
async def teachers(settings: EvalSettings, tell: Callable[[str], None], direct: bool) -> AsyncIterator[Teachers]:
    """Starts the model, which ends with the block; a model of this process once for both ways.

    Args:
        settings: of the model, as `codedance eval` takes it.
        tell: gets lines on the loop of an endpoint.
        direct: whether it is asked without tools too.

    Raises UserError: it does not start, or nothing answers there.
    """
    async with contextlib.AsyncExitStack() as resources:
        # the one with tools first: what it turns out to be decides how the other is asked
        tools = await resources.enter_async_context(answerers.started(settings, tell))
        if not direct:
            yield Teachers(Teacher(tools, settings), Teacher(tools, settings))
            return
        chat = isinstance(tools, ChatAnswerer)
        # a chat endpoint cannot be kept from writing a call: it is asked outside of the loop
        changes = {"loop": "plain"} if chat else {"control": str(Control.NO_TOOLS)}
        without = replace(settings, evaluation=settings.evaluation.replace(**changes))
        answerer = _of_this_process(tools, without)
        if answerer is None:
            answerer = await resources.enter_async_context(answerers.started(without, tell))
        yield Teachers(Teacher(answerer, without), Teacher(tools, settings))


def _of_this_process(tools: Answerer, settings: EvalSettings) -> Answerer | None:
    """The model of this process under other settings of a request; None for an endpoint."""
    if settings.evaluation.endpoint is not None:
        return None
    # imported here: it imports verl, which takes seconds and an endpoint has no use for
    from codedance_verl.harness.local_answerer import LocalAnswerer

    assert isinstance(tools, LocalAnswerer)
    # a second start would load the weights twice
    return replace(tools, asked=settings.evaluation)
