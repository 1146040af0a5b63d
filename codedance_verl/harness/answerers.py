"""Choice of what answers: a model in this process, a running `codedance serve`, or any chat endpoint."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator, Callable

from codedance_verl.harness.reply import Answerer
from codedance_verl.harness.settings import EvalSettings
from codedance_verl.serving.settings import settings_of
from codedance_verl.verl_compat.warm_workers import warm_engine


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@contextlib.asynccontextmanager
async def started(settings: EvalSettings, tell: Callable[[str], None] = _to_stderr) -> AsyncIterator[Answerer]:
    """Starts what answers; it ends with the block. `tell` gets a line on the loop of an endpoint.

    Raises UserError: it does not start, or nothing answers there.
    """
    asked = settings.evaluation
    if asked.endpoint is not None:
        from codedance_verl.harness.endpoints import connected

        async with connected(settings, tell) as answerer:
            yield answerer
        return
    service = settings_of(asked.model, settings.tree, settings.overrides)
    service.set_environment()
    from codedance_verl.harness.local_answerer import LocalAnswerer

    # around the answerer, which starts the engine's process
    with warm_engine(service.warm_start):
        async with LocalAnswerer.started(service, asked) as local:
            yield local
