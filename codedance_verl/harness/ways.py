"""One model under both ways of asking it: with tools in the environment's loop, and without them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace

from codedance_verl.data.conditions import Control
from codedance_verl.harness import answerers
from codedance_verl.harness.chat_answerer import ChatAnswerer
from codedance_verl.harness.reply import Answerer
from codedance_verl.harness.settings import EvalSettings


@dataclass(frozen=True)
class Way:
    """Model under one way of asking it, with the settings that the key of its records is made of."""

    answerer: Answerer
    settings: EvalSettings


@dataclass(frozen=True)
class Ways:
    """The same model without tools and with them."""

    direct: Way
    tools: Way


@contextlib.asynccontextmanager
async def both_ways(settings: EvalSettings, tell: Callable[[str], None]) -> AsyncIterator[Ways]:
    """Starts a model, which ends with the block; one of this process once for both ways.

    `tell` gets lines on the loop of an endpoint. Raises UserError: it does not start, or nothing answers there.
    """
    async with contextlib.AsyncExitStack() as resources:
        # the one with tools first: what it turns out to be decides how the other is asked
        tools = await resources.enter_async_context(answerers.started(settings, tell))
        # nobody can keep a chat endpoint's model from writing a call: it is asked outside of the loop
        changes = {"loop": "plain"} if isinstance(tools, ChatAnswerer) else {"control": str(Control.NO_TOOLS)}
        without = replace(settings, evaluation=settings.evaluation.replace(**changes))
        direct = _of_this_process(tools, without)
        if direct is None:
            direct = await resources.enter_async_context(answerers.started(without, tell))
        yield Ways(Way(direct, without), Way(tools, settings))


def _of_this_process(tools: Answerer, settings: EvalSettings) -> Answerer | None:
    """The model of this process under other settings of a request; None for an endpoint."""
    if settings.evaluation.endpoint is not None:
        return None
    # imported here: it imports verl, which takes seconds and an endpoint has no use for
    from codedance_verl.harness.local_answerer import LocalAnswerer

    assert isinstance(tools, LocalAnswerer)
    # a second start would load the weights twice
    return replace(tools, asked=settings.evaluation)
