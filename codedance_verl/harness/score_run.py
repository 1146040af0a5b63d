"""Scores and report of the replies on record."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence

from codedance_verl.harness.comparing import model_name
from codedance_verl.harness.judge_agreement import judge_agreement
from codedance_verl.harness.listing import Listed
from codedance_verl.harness.measured import Measured
from codedance_verl.harness.reply import Reply
from codedance_verl.harness.report import BenchmarkReport, Scoring
from codedance_verl.harness.report_build import ScoredBenchmark
from codedance_verl.harness.report_files import Written, write_files
from codedance_verl.harness.scores import scores_of, write_scores
from codedance_verl.harness.scoring import Scorer, score
from codedance_verl.harness.settings import EvalSettings
from codedance_verl.records.progress import Progress
from codedance_verl.records.record import plain_id
from codedance_verl.records.store import Store, existing_store
from codedance_verl.runtime.locks import exclusive_lock
from codedance_verl.tasks.item import Item

TOLD_EVERY_S = 10.0
"""Seconds between two lines of progress."""

LONGEST_SCORING_S = 24 * 3600.0
"""Longest wait for another process that scores the same run."""


async def score_and_report(
    settings: EvalSettings, benchmarks: Sequence[Listed], tell: Callable[[str], None]
) -> Written:
    """Scores every reply on record, and writes scores and report into the folder of the run.

    Raises:
        UserError: there are no records, or a run of `beside` cannot stand beside this one.
        OSError: a file cannot be written.
    """
    # one process after the other: what the first asks of a judge, the others read
    busy = f"{settings.out}: another process has scored it for a day; end it and start again"
    lock = exclusive_lock(settings.out / ".scoring", busy, LONGEST_SCORING_S)
    await asyncio.to_thread(lock.__enter__)  # it waits
    try:
        return await _scored_and_reported(settings, benchmarks, tell)
    finally:
        lock.__exit__(None, None, None)


async def _scored_and_reported(
    settings: EvalSettings, benchmarks: Sequence[Listed], tell: Callable[[str], None]
) -> Written:
    scored = []
    async with contextlib.aclosing(Scorer(settings.grading, settings.out)) as scorer:
        for benchmark in benchmarks:
            tell(f"{benchmark.task.name}: scoring")
            scored.append(await _scored(settings, benchmark, scorer, tell))
    notes = [f"{one.task.name}: {_limited(one, settings)}" for one in benchmarks if settings.evaluation.limit]
    notes += [await _agreement(settings, one) for one in scored if settings.evaluation.judge_agreement]
    return await asyncio.to_thread(
        write_files, settings.out, model_name(scored[0].key), scored, settings.beside, [note for note in notes if note]
    )


async def _agreement(settings: EvalSettings, scored: ScoredBenchmark) -> str:
    """Note on how often the judge of the grader says what the official score does."""
    count, judge = settings.evaluation.judge_agreement, settings.grading.judge
    found = await judge_agreement(scored.measured, count, judge, settings.out)
    return f"{scored.task.name}: {found.sentence}"


def summary(benchmark: BenchmarkReport) -> str:
    """Headline of a benchmark in a line: by the official rule, and by the grader of this project."""
    return "; ".join(f"{one.which} {_headline(one)}" for one in benchmark.scorings)


def _headline(scoring: Scoring) -> str:
    found = scoring.headline
    return "not scored" if found is None else f"{found.name} {found.sentence}"


class _Telling:
    """Progress of a scoring, told every `TOLD_EVERY_S` seconds; called after each sample."""

    def __init__(self, name: str, total: int, tell: Callable[[str], None]) -> None:
        self._name, self._progress, self._tell = name, Progress(total, 0, time.monotonic()), tell
        self._done, self._told_at = 0, time.monotonic()

    def __call__(self) -> None:
        self._done += 1
        if (now := time.monotonic()) - self._told_at >= TOLD_EVERY_S:
            self._told_at = now
            self._tell(f"{self._name}, scoring: {self._progress.line(self._done, now)}")


async def _scored(
    settings: EvalSettings, benchmark: Listed, scorer: Scorer, tell: Callable[[str], None]
) -> ScoredBenchmark:
    store = existing_store(benchmark.folder(settings.out))
    items = await asyncio.to_thread(lambda: list(benchmark.items()))
    recorded = await asyncio.to_thread(_measured, store, items, benchmark.task is benchmark.replies)
    telling = _Telling(benchmark.task.name, len(recorded), tell)
    measured = await score(recorded, benchmark.task, scorer, telling)
    named = {"judge": scorer.judge_name(benchmark.task), "grader": scorer.grader_name}
    scores = scores_of(benchmark.task, store.key, measured, items=items, **named)
    await asyncio.to_thread(write_scores, settings.out, scores)
    return ScoredBenchmark(benchmark.task, store.key, scores, measured)


def _measured(store: Store, items: Sequence[Item], alike: bool) -> list[Measured]:
    """What is on record of these items, in their order; `alike`: the records are of just these items."""
    by_id = {plain_id(item): item for item in items}
    found: dict[tuple[str, int], Measured] = {}
    for record in store.records():
        item = by_id.get(record.item)
        # a rule for replies to another benchmark has items of its own, which may state another truth
        if item is None or (alike and record.item_sha256 != item.sha256):
            continue
        if record.sample < store.key.samples:
            reply = None if record.data is None else Reply.from_json(record.data)
            found[record.item, record.sample] = Measured(item, record.sample, record.status, record.reason, reply)
    wanted = ((name, sample) for name in by_id for sample in range(store.key.samples))
    return [found[one] for one in wanted if one in found]


def _limited(benchmark: Listed, settings: EvalSettings) -> str:
    """Note for a benchmark of which only the first items were asked; empty for a whole one."""
    limit = settings.evaluation.limit
    return "" if limit is None or benchmark.count < limit else f"the first {limit:,} items alone (eval.limit)"
