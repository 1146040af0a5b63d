"""Evaluation from the plan to the report: what is left is asked, every reply is scored, and figures are written."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from codedance_verl.harness import answerers
from codedance_verl.harness.config import BLANK
from codedance_verl.harness.dispatch import Dispatch, ask_all
from codedance_verl.harness.measured import Measured
from codedance_verl.harness.reply import Answerer, ImageFolder, Reply
from codedance_verl.harness.scores import scores_of, write_scores
from codedance_verl.harness.scoring import Scorer, score
from codedance_verl.harness.settings import EvalSettings
from codedance_verl.harness.sources import items_of, source_of
from codedance_verl.records.key import Key, replies_key
from codedance_verl.records.progress import Progress
from codedance_verl.records.record import plain_id
from codedance_verl.records.store import Plan, Store, existing_store, open_store
from codedance_verl.records.writer import Writer
from codedance_verl.tasks.item import Item
from codedance_verl.tasks.own_records import is_own, own_task
from codedance_verl.tasks.registry import task_of
from codedance_verl.tasks.task import Task

TOLD_EVERY_S = 10.0
"""Seconds between two lines of progress."""

TABLES = "tables"
"""Folder, in that of the run, for the rows of files of one's own."""

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Listed:
    """Benchmark with the items that are asked, and `replies`, the benchmark whose replies are scored."""

    task: Task
    replies: Task
    items: Callable[[], Iterator[Item]]
    count: int

    def folder(self, out: Path) -> Path:
        """Folder of the replies' records."""
        return out / self.replies.name


def listed(settings: EvalSettings, tell: Tell) -> tuple[Listed, ...]:
    """Benchmarks of the settings, their items counted. Raises UserError: files of one are not there."""
    found = []
    for name in settings.evaluation.benchmarks:
        own = is_own(name)
        task = own_task(Path(name), settings.out / TABLES) if own else task_of(name)
        folder = Path(name).parent if own else source_of(task, settings.evaluation.data)
        items = items_of(task, folder, settings.evaluation.limit)
        count = sum(1 for _ in items())
        whole = (limit := settings.evaluation.limit) is None or count < limit
        if whole and (note := task.count_note(count)):
            tell(note)
        found.append(Listed(task, task_of(task.replies_of) if task.replies_of else task, items, count))
    return tuple(found)


def key_of(settings: EvalSettings, task: Task, described: dict[str, object]) -> Key:
    """Key of the replies to a benchmark."""
    asked = settings.evaluation
    return replies_key(
        task=task.name,
        revision=task.revision,
        sampling={"temperature": asked.temperature, "top_p": asked.top_p, "seed": asked.seed},
        control=asked.control or "",
        samples=asked.samples,
        model=described["model"],
        prompt=described["prompt"],
        limits=described["limits"],
    )


async def evaluate(settings: EvalSettings, tell: Tell) -> None:
    """Asks, scores and reports.

    Raises:
        UserError: files, model or endpoint are not there; the records were made with other settings.
    """
    benchmarks = listed(settings, tell)
    async with answerers.started(settings) as answerer:
        for benchmark in _to_ask(benchmarks):
            await _ask(settings, benchmark, answerer, tell)
    async with contextlib.aclosing(Scorer(settings.grading, settings.out)) as scorer:
        for benchmark in benchmarks:
            await _score(settings, benchmark, scorer, tell)


def plans(settings: EvalSettings, tell: Tell) -> Iterator[tuple[Listed, Plan | None]]:
    """What is on record of each benchmark, and what is left; None where there are no records yet."""
    for benchmark in listed(settings, tell):
        folder = benchmark.folder(settings.out)
        if not (folder / "key.json").is_file():
            yield benchmark, None
        else:
            yield benchmark, existing_store(folder).plan(benchmark.items(), settings.evaluation.asked_again)


def _to_ask(benchmarks: Sequence[Listed]) -> list[Listed]:
    """Benchmarks whose replies are asked for, each once."""
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
    """Tells how far it is every `TOLD_EVERY_S` seconds and in the end; gives what is called after each record."""
    progress = Progress(plan.total, plan.done, time.monotonic())
    last: list[float] = [time.monotonic()]
    seen: list[Writer] = []

    def line(writer: Writer) -> str:
        return f"{name}: {progress.line(writer.done, time.monotonic(), writer.statuses)}"

    def told(writer: Writer) -> None:
        seen[:] = [writer]
        if time.monotonic() - last[0] >= TOLD_EVERY_S:
            last[0] = time.monotonic()
            tell(line(writer))

    yield told
    if seen:
        tell(line(seen[0]))


async def _score(settings: EvalSettings, benchmark: Listed, scorer: Scorer, tell: Tell) -> None:
    store = existing_store(benchmark.folder(settings.out))
    items = await asyncio.to_thread(lambda: list(benchmark.items()))
    measured = await asyncio.to_thread(_measured, store, items)
    tell(f"{benchmark.task.name}: scoring {len(measured):,} samples")
    scored = await score(measured, benchmark.task, scorer)
    scores = scores_of(
        benchmark.task,
        store.key,
        scored,
        items=items,
        judge=scorer.judge_name(benchmark.task),
        grader=scorer.grader_name,
    )
    await asyncio.to_thread(write_scores, settings.out, scores)


def _measured(store: Store, items: Sequence[Item]) -> list[Measured]:
    """What is on record of these items, in their order."""
    by_id = {plain_id(item): item for item in items}
    found: dict[tuple[str, int], Measured] = {}
    for record in store.records():
        if (item := by_id.get(record.item)) is not None and record.sample < store.key.samples:
            reply = None if record.data is None else Reply.from_json(record.data)
            found[record.item, record.sample] = Measured(item, record.sample, record.status, record.reason, reply)
    return [found[name, sample] for name in by_id for sample in range(store.key.samples) if (name, sample) in found]
