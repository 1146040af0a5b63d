"""Synthesis from the questions to the demonstrations and the report."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from codedance_verl.errors import UserError
from codedance_verl.grading.grader import Grader
from codedance_verl.harness.listing import listed
from codedance_verl.harness.settings import EvalSettings
from codedance_verl.records.record import Status
from codedance_verl.runtime.atomic import write_atomically
from codedance_verl.runtime.locks import exclusive_lock
from codedance_verl.synthesis.page import Examples, write_page
from codedance_verl.synthesis.report import Counting, SynthesisReport, report_of
from codedance_verl.synthesis.rounds import Questions, Tell, recorded_round, rounds_of
from codedance_verl.synthesis.rows import Judged, write_outputs
from codedance_verl.synthesis.settings import Synthesis
from codedance_verl.synthesis.solving import Solved, Solver
from codedance_verl.synthesis.teachers import check_teacher, teachers
from codedance_verl.tasks.own_records import is_own

LONGEST_WRITING_S = 6 * 3600.0
"""Longest wait for another process that writes the outputs of the same synthesis."""


async def synthesize(settings: EvalSettings, synthesis: Synthesis, tell: Tell, ask: bool = True) -> SynthesisReport:
    """Asks, checks and writes `sft.parquet`, `rejections.jsonl`, `report.json` and `report.html`.

    Run again with the same folder, it asks and checks only what has no record. Several processes may share a folder.

    Args:
        settings: of the teacher, the questions and the folder, as those of an evaluation.
        synthesis: tries and checks.
        tell: gets lines of progress.
        ask: False asks nothing, and checks and writes what is on record.

    Raises:
        UserError: a file, the teacher or the sandbox cannot be used, or the records are of other settings.
        OSError: a file cannot be written.
    """
    check_teacher(settings)
    # before the model starts, which takes minutes: files that are not there are said at once
    questions = _questions(settings, synthesis, tell)
    async with contextlib.AsyncExitStack() as resources:
        grader = Grader(settings.grading, settings.out)
        resources.push_async_callback(grader.close)
        grader.check_custom()
        asked = None
        if ask:
            asked = await resources.enter_async_context(teachers(settings, tell, synthesis.direct > 0))
        solver = Solver(settings, asked, grader, tell)
        solved = [await solver.solve(each) for each in questions]
    return await asyncio.to_thread(_write, settings, solved)


def plan_lines(settings: EvalSettings, synthesis: Synthesis, tell: Tell) -> Iterator[str]:
    """Lines on what a synthesis may cost, and what is on record. Raises UserError as `synthesize`."""
    for each in _questions(settings, synthesis, tell):
        count, name = each.benchmark.count, each.benchmark.task.name
        direct, with_tools = rounds_of(synthesis)
        most = count * (synthesis.direct + synthesis.tries)
        yield (
            f"{name}: {count:,} questions; at most {count * synthesis.direct:,} answers without tools and "
            f"{count * synthesis.tries:,} trajectories, {most:,} samples in all"
        )
        for which in (*direct, *with_tools):
            store = recorded_round(each, which)
            if store is None:
                continue
            statuses = store.plan(each.items(which)).statuses
            answered = statuses.get(Status.ANSWERED, 0)
            yield f"{name}, {which.name}: {answered:,} answered, {sum(statuses.values()) - answered:,} failed"


def _questions(settings: EvalSettings, synthesis: Synthesis, tell: Tell) -> list[Questions]:
    for name in settings.evaluation.benchmarks:
        if not is_own(name):
            raise UserError(f"{name} is a benchmark; demonstrations are made of training records, a parquet file")
    return [Questions(benchmark, synthesis, settings.out) for benchmark in listed(settings, tell)]


def _write(settings: EvalSettings, solved: list[Solved]) -> SynthesisReport:
    counted, examples = Counting(), Examples()
    # by identity: several files have rounds of one name
    files = {id(result): one for one in solved for result in one.rounds}

    def seen(found: Judged) -> None:
        one = files[id(found.result)]
        counted.add(found, one)
        examples.add(found, one.kept.get(found.name) == found.result.which.name)

    out = settings.out
    busy = f"{out}: another process has written its outputs for hours; end it and start again"
    with exclusive_lock(out / ".writing", busy, LONGEST_WRITING_S):
        rows = write_outputs(out, solved, seen)
        report = report_of(settings.evaluation.model, solved, counted, rows)
        write_atomically(out / "report.json", _json(report))
        write_page(out / "report.html", report, examples, out)
    return report


def _json(report: SynthesisReport) -> bytes:
    return msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n"


def files_of(out: Path) -> tuple[Path, ...]:
    """Files that a synthesis writes."""
    return tuple(out / name for name in ("sft.parquet", "rejections.jsonl", "report.json", "report.html"))
