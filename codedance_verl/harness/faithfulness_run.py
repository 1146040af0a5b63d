"""Faithfulness of the calls of an evaluation: replies on record are taken, and their calls run again."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
from omegaconf import OmegaConf

from codedance_verl.harness.faithfulness import CallFinding, faithfulness, shares
from codedance_verl.harness.listing import Listed, listed
from codedance_verl.harness.reply import Reply
from codedance_verl.harness.settings import EvalSettings
from codedance_verl.harness.stated_answers import answer_of
from codedance_verl.records.record import Record, Status, plain_id
from codedance_verl.records.store import existing_store
from codedance_verl.runtime.atomic import write_atomically
from codedance_verl.sandbox.config import SandboxConfig
from codedance_verl.sandbox.pool import SandboxPool
from codedance_verl.tasks.item import Item, UnreadableImage

FOLDER = "faithfulness"
"""Folder of the findings, in that of the run."""

TRAJECTORIES_AT_ONCE = 2


@dataclass(frozen=True)
class ReplyFindings:
    """Findings on the calls of one reply; `fault` says why there are none."""

    item: str
    sample: int
    calls: tuple[CallFinding, ...] = ()
    fault: str = ""


async def faithfulness_of(settings: EvalSettings, most: int, tell: Callable[[str], None]) -> None:
    """Finds how calls use the evidence, benchmark by benchmark, and writes `OUT/faithfulness/<benchmark>.json`.

    Args:
        settings: of the evaluation that is on record.
        most: replies of a benchmark whose calls are run again, drawn evenly where there are more; the same ones again.
        tell: gets a line for each benchmark.

    Raises:
        UserError: there are no records, files of a benchmark are not there, or the sandbox does not start.
    """
    sandbox = OmegaConf.to_container(settings.tree.sandbox, resolve=True)
    benchmarks = listed(settings, tell)
    async with SandboxPool.local(SandboxConfig.from_mapping(dict(sandbox))) as pool:  # type: ignore[arg-type]
        for benchmark in benchmarks:
            found = await _benchmark(settings, benchmark, most, pool)
            tell(f"{benchmark.task.name}: {_line(found)}")


async def _benchmark(
    settings: EvalSettings, benchmark: Listed, most: int, pool: SandboxPool
) -> Sequence[ReplyFindings]:
    items = {plain_id(item): item for item in benchmark.items()}
    store = existing_store(benchmark.folder(settings.out))
    with_code = [record for record in store.records() if record.item in items and _has_code(record)]
    drawn = random.Random(0).sample(with_code, min(most, len(with_code)))
    places = asyncio.Semaphore(TRAJECTORIES_AT_ONCE)

    async def one(record: Record) -> ReplyFindings:
        async with places:
            return await _reply(items[record.item], record, pool, settings.out)

    found = await asyncio.gather(*map(one, drawn))
    path = settings.out / FOLDER / f"{benchmark.task.name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    calls = [call for reply in found for call in reply.calls]
    document = {"replies": len(with_code), "drawn": len(drawn), "shares": shares(calls), "findings": found}
    write_atomically(path, msgspec.json.format(msgspec.json.encode(document), indent=1))
    return found


async def _reply(item: Item, record: Record, pool: SandboxPool, out: Path) -> ReplyFindings:
    reply = Reply.from_json(record.data)
    answer, boxes = answer_of(reply.text, item.choices, item.question), item.facts.get("boxes", ())
    try:
        images = [image.read() for image in item.images]
        calls = await faithfulness(pool, images, reply.turns, answer, boxes, out)
    except (UnreadableImage, OSError, SyntaxError, ValueError) as error:
        return ReplyFindings(record.item, record.sample, fault=f"{type(error).__name__}: {error}")
    return ReplyFindings(record.item, record.sample, calls)


def _has_code(record: Record) -> bool:
    return record.status is Status.ANSWERED and Reply.from_json(record.data).calls > 0


def _line(found: Sequence[ReplyFindings]) -> str:
    counted = shares([call for reply in found for call in reply.calls])
    named = ", ".join(f"{count} {use}" for use, count in counted.items() if count and not use.endswith("_share"))
    return f"{len(found):,} replies; {named or 'no calls'}"
