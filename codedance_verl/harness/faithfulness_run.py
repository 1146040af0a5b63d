"""Faithfulness of the calls of an evaluation: replies on record are taken, and their calls run again."""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import itertools
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import OmegaConf

from codedance_verl.errors import UserError
from codedance_verl.harness import reply_findings
from codedance_verl.harness.faithfulness import CallFinding, faithfulness
from codedance_verl.harness.image_urls import UNREADABLE
from codedance_verl.harness.listing import Listed, listed
from codedance_verl.harness.replay_sandbox import recorded_limits, replay_sandbox
from codedance_verl.harness.reply import Reply
from codedance_verl.harness.reply_findings import Findings, ReplyFindings
from codedance_verl.harness.settings import EvalSettings
from codedance_verl.harness.stated_answers import answer_of
from codedance_verl.records.record import Record, Status, plain_id
from codedance_verl.records.store import Store, existing_store
from codedance_verl.sandbox.config import SandboxConfig
from codedance_verl.sandbox.pool import SandboxPool
from codedance_verl.tasks.item import Item, UnreadableImage

TRAJECTORIES_AT_ONCE = 2  # each with up to `faithfulness.AT_ONCE` sessions

_REASON_CHARS = 300

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Recorded:
    """Benchmark with its records, and the settings under which their code runs again."""

    benchmark: Listed
    store: Store
    sandbox: SandboxConfig


async def faithfulness_of(settings: EvalSettings, most: int, tell: Callable[[str], None]) -> None:
    """Finds how calls use the evidence, benchmark by benchmark, and writes `reply_findings.FOLDER`.

    Run again, it takes the replies that have no findings yet (`ReplyFindings.again`).

    Args:
        settings: of the evaluation that is on record.
        most: replies of a benchmark whose calls are run again, drawn evenly where there are more. Those of a smaller
            number are among those of a larger one.
        tell: gets a line for each benchmark.

    Raises:
        UserError: there are no records, files of a benchmark are not there, the replies were made without the evidence
            (`replay_sandbox`), or the sandbox does not start.
        OSError: findings cannot be written; those on disk stay.
    """
    given: Any = OmegaConf.to_container(settings.tree.sandbox, resolve=True)
    # all of them before a sandbox starts, so that missing records are said at once
    recorded = [_recorded(settings, benchmark, given, tell) for benchmark in listed(settings, tell)]
    for sandbox, alike in itertools.groupby(recorded, key=lambda one: one.sandbox):  # neighbours share a pool
        async with SandboxPool.local(sandbox) as pool:
            for one in alike:
                tell(f"{one.benchmark.task.name}: {_line(await _found(settings, one, most, pool))}")


def _recorded(
    settings: EvalSettings, benchmark: Listed, given: Mapping[str, Any], tell: Callable[[str], None]
) -> _Recorded:
    folder = benchmark.folder(settings.out)
    store = existing_store(folder)
    if not recorded_limits(store.key):
        tell(f"{folder}: its key states no settings of the sandbox; calls run again under those of conf/eval.yaml")
    return _Recorded(benchmark, store, replay_sandbox(given, store.key, folder))


async def _found(settings: EvalSettings, recorded: _Recorded, most: int, pool: SandboxPool) -> Findings:
    name, key = recorded.benchmark.task.name, recorded.store.key
    items = {plain_id(item): item for item in recorded.benchmark.items()}
    with_code = [record for record in recorded.store.records() if record.item in items and _has_code(record)]
    drawn = heapq.nsmallest(most, with_code, key=_place_in_draw)
    path = reply_findings.lines_path(settings.out, name)
    known = reply_findings.opened(path)
    places = asyncio.Semaphore(TRAJECTORIES_AT_ONCE)

    async def one(record: Record) -> ReplyFindings:
        item = items[record.item]
        of = reply_findings.digest_of(record, key, item.facts.get("boxes", ()))
        if (before := known.get(of)) is not None and not before.again:
            return before
        async with places:
            found = await _reply(of, item, record, pool, settings)
        reply_findings.add(path, found)  # at once: a run that is stopped goes on from here
        return found

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(record)) for record in drawn]
    except BaseExceptionGroup as faults:
        raise faults.exceptions[0] from None  # the others met the same
    return reply_findings.write_summary(settings.out, name, key, len(with_code), [task.result() for task in tasks])


async def _reply(of: str, item: Item, record: Record, pool: SandboxPool, settings: EvalSettings) -> ReplyFindings:
    """Findings on a reply; whatever fails costs this reply alone."""
    calls: tuple[CallFinding, ...] = ()
    fault = ""
    try:
        reply = Reply.from_json(record.data)
        answer, boxes = answer_of(reply.text, item.choices, item.question), item.facts.get("boxes", ())
        images = [image.read() for image in item.images]
        calls = await faithfulness(pool, images, reply.turns, answer, boxes, settings.out)
    except UserError:  # of the settings or the machine, which every reply would meet
        raise
    except (UnreadableImage, *UNREADABLE) as error:
        fault = f"{type(error).__name__}: {error}"[:_REASON_CHARS]
    except Exception as error:  # a defect of ours
        _logger.exception("item %s", record.item)
        fault = f"{type(error).__name__}: {error}"[:_REASON_CHARS] + "; please report this"
    return ReplyFindings(of=of, item=record.item, sample=record.sample, calls=calls, fault=fault)


def _place_in_draw(record: Record) -> str:
    """Digest by which replies are drawn: the same ones whatever else is on record."""
    return hashlib.sha256(f"{record.item}\n{record.sample}".encode()).hexdigest()


def _has_code(record: Record) -> bool:
    return record.status is Status.ANSWERED and Reply.from_json(record.data).calls > 0


def _line(found: Findings) -> str:
    named = ", ".join(f"{count} {use}" for use, count in found.shares.items() if count and not use.endswith("_share"))
    faults = sum(bool(reply.fault) for reply in found.findings)
    without = f", {faults:,} without findings" if faults else ""
    return f"{len(found.findings):,} replies{without}; {named or 'no calls'}"
