"""Choice of what answers: a model in this process, a running `codedance serve`, or any chat endpoint."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from codedance_verl.harness.reply import Answerer
from codedance_verl.harness.settings import EvalSettings
from codedance_verl.serving.settings import settings_of
from codedance_verl.verl_compat.warm_workers import warm_engine


@contextlib.asynccontextmanager
async def started(settings: EvalSettings) -> AsyncIterator[Answerer]:
    """Starts what answers; it ends with the block. Raises UserError: it does not start, or nothing answers there."""
    asked = settings.evaluation
    if asked.endpoint is not None:
        from codedance_verl.harness.endpoints import connected

        async with connected(settings) as answerer:
            yield answerer
        return
    service = settings_of(asked.model, settings.tree, settings.overrides)
    service.set_environment()
    from codedance_verl.harness.local_answerer import LocalAnswerer

    with warm_engine(service.warm_start):
        async with LocalAnswerer.started(service, asked) as local:
            yield local
