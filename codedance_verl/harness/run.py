"""Evaluation from the plan to the report: what is left is asked, every reply is scored, and figures are written."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any

from codedance_verl.harness import answerers
from codedance_verl.harness.config import BLANK
from codedance_verl.harness.dispatch import Dispatch, ask_all
from codedance_verl.harness.listing import Listed, listed
from codedance_verl.harness.reply import Answerer, ImageFolder
from codedance_verl.harness.score_run import TOLD_EVERY_S, score_and_report, summary
from codedance_verl.harness.settings import EvalSettings
from codedance_verl.records.key import ChangedKey, Key, replies_key
from codedance_verl.records.progress import Progress
from codedance_verl.records.store import KEY_FILE, Plan, existing_store, open_store
from codedance_verl.records.writer import Writer
from codedance_verl.tasks.task import Task

Tell = Callable[[str], None]


def key_of(settings: EvalSettings, task: Task, described: Mapping[str, Any]) -> Key:
    """Key of the replies to a benchmark. The chat template stands with the model, as other models have others."""
    asked, template = settings.evaluation, "chat_template_sha256"
    model = {template: described["prompt"].get(template), **described["model"]}
    prompt = {name: value for name, value in described["prompt"].items() if name != template}
    return replies_key(
        task=task.name,
        revision=task.revision,
        sampling={"temperature": asked.temperature, "top_p": asked.top_p, "seed": asked.seed},
        control=asked.control or "",
        samples=asked.samples,
        model=model,
        prompt=prompt,
        limits=described["limits"],
    )


async def evaluate(settings: EvalSettings, tell: Tell) -> None:
    """Asks, scores and reports.

    Raises:
        UserError: files, model or endpoint are not there; the records were made with other settings.
    """
    benchmarks = listed(settings, tell)
    if not settings.evaluation.score_only:
        async with answerers.started(settings) as answerer:
            for benchmark in _to_ask(benchmarks):
                await _ask(settings, benchmark, answerer, tell)
    written = await score_and_report(settings, benchmarks, tell)
    for found in written.report.benchmarks:
        tell(f"{found.task}: {summary(found)}")
    tell(f"report: {written.files[1]}")


def plans(settings: EvalSettings, tell: Tell) -> Iterator[tuple[Listed, Plan | None]]:
    """What is on record of each benchmark, and what is left; None where there are no records yet.

    Raises ChangedKey: the records were made with other settings, as far as these are known without the model.
    """
    for benchmark in listed(settings, tell):
        folder = benchmark.folder(settings.out)
        if not (folder / KEY_FILE).is_file():
            yield benchmark, None
            continue
        store = existing_store(folder)
        known = {part.name: part.value for part in store.key.parts}
        wanted = key_of(settings, benchmark.replies, {name: known[name] for name in ("model", "prompt", "limits")})
        if changes := store.key.changes_to(wanted):
            raise ChangedKey("\n".join([f"{folder}: its records were made with other settings", *changes]))
        yield benchmark, store.plan(benchmark.items(), settings.evaluation.asked_again)


def _to_ask(benchmarks: Sequence[Listed]) -> list[Listed]:
    """Benchmarks whose replies are asked for, each once."""
    # from behind: of several with the same replies the first one stays
    return list({benchmark.replies.name: benchmark for benchmark in reversed(benchmarks)}.values())[::-1]


async def _ask(settings: EvalSettings, benchmark: Listed, answerer: Answerer, tell: Tell) -> None:
    asked = settings.evaluation
    key = key_of(settings, benchmark.replies, answerer.describe())
    store = await asyncio.to_thread(open_store, benchmark.folder(settings.out), key)
    plan = await asyncio.to_thread(lambda: store.plan(benchmark.items(), asked.asked_again))
    tell(f"{benchmark.replies.name}: {plan.total:,} samples, {plan.done:,} on record, {plan.left:,} to ask")
    if not plan.left:
        return
    most = min(asked.concurrency or answerer.most_at_once, answerer.most_at_once)
    dispatch = Dispatch(
        store=store,
        items=benchmark.items,
        answerer=answerer,
        images=ImageFolder(settings.out),
        most_at_once=most,
        again=asked.asked_again,
        blank=asked.control == BLANK,
    )
    async with _progress(benchmark.replies.name, plan, tell) as told:
        await ask_all(dispatch, told)


@contextlib.asynccontextmanager
async def _progress(name: str, plan: Plan, tell: Tell) -> AsyncIterator[Callable[[Writer], None]]:
    """Tells how far all processes are, every `TOLD_EVERY_S` seconds and in the end; gives what notes the writer."""
    progress = Progress(plan.total, plan.done, time.monotonic())
    seen: list[Writer] = []

    async def line() -> str:
        await asyncio.to_thread(seen[0].refresh)
        return f"{name}: {progress.line(seen[0].done, time.monotonic(), seen[0].statuses)}"

    async def telling() -> None:
        while True:
            await asyncio.sleep(TOLD_EVERY_S)
            tell(await line() if seen else f"{name}: waiting for the first reply")

    task = asyncio.create_task(telling())
    try:
        yield lambda writer: seen.__setitem__(slice(None), [writer])
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    if seen:
        tell(await line())
