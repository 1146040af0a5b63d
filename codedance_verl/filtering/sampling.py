"""Sampling of one chunk by one model: rounds, each of which asks as many samples as no outcome could make needless."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from codedance_verl.data.fields import Source
from codedance_verl.data.rows import CanonicalRow
from codedance_verl.filtering.models import Mode, Tell
from codedance_verl.filtering.rows import Chunk, item_of, rows_of
from codedance_verl.filtering.rule import Arm, Count, Rule
from codedance_verl.filtering.verdicts import Grading, Verdicts, grade_new, load
from codedance_verl.harness.dispatch import Dispatch, ask_all
from codedance_verl.harness.reply import ImageFolder
from codedance_verl.harness.score_run import TOLD_EVERY_S
from codedance_verl.records.progress import Progress
from codedance_verl.records.store import Store, open_store
from codedance_verl.records.writer import Writer
from codedance_verl.runtime.progress import clock
from codedance_verl.tasks.item import Item

RECORDS = "records"
"""Folder, in that of the filter, with a folder for each chunk and arm."""


@dataclass(frozen=True)
class Sampler:
    """What all chunks have in common.

    Attributes:
        out: folder of the filter.
        rule: when to stop.
        grading: verdicts.
        tell: gets lines of progress.
    """

    out: Path
    rule: Rule
    grading: Grading
    tell: Tell

    def folder(self, chunk: Chunk, arm: Arm) -> Path:
        """Folder of the records of a chunk and arm."""
        return self.out / RECORDS / chunk.name / arm.value


@dataclass
class Pace:
    """Rate of a model over all its chunks, in samples a second."""

    asked: int = 0
    seconds: float = 0.0

    def remaining(self, samples: int) -> str:
        """Time that so many samples take at this rate; empty before the first."""
        return clock(samples * self.seconds / self.asked) if self.asked else ""


@dataclass
class _State:
    """Chunk while it is sampled: its rows without images, and the verdicts of all arms."""

    rows: dict[str, CanonicalRow[Source]]
    verdicts: dict[Arm, Verdicts]
    tried: set[tuple[str, int]] = field(default_factory=set)
    """Rows and samples that this run has asked, so that what fails again is not asked for ever."""

    def counts(self, row: str) -> dict[Arm, Count]:
        return {arm: found.count(row) for arm, found in self.verdicts.items()}


def on_record(sampler: Sampler, chunk: Chunk) -> dict[Arm, Verdicts]:
    """Verdicts that are kept of a chunk."""
    return {arm: load(sampler.folder(chunk, arm), arm, sampler.grading) for arm in Arm}


async def sample_chunk(sampler: Sampler, chunk: Chunk, modes: Mapping[bool, Mode], model: str, pace: Pace) -> None:
    """Samples the questions of a chunk until each is settled or the model has given all its samples.

    Raises what `ask_all` does: the endpoint is down. What was answered is on record.
    """
    state = _State({row.id: _light(row.row) for row in rows_of(chunk)}, on_record(sampler, chunk))
    for arm in Arm:
        if arm.model == model and sampler.rule.samples[arm]:
            await _sample_arm(sampler, chunk, arm, modes[arm.tools], state, pace)


def samples_left(rule: Rule, rows: Mapping[str, Mapping[Arm, Count]], model: str) -> int:
    """Samples that a model may still be asked, at most."""
    left = 0
    for counts in rows.values():
        left += sum(
            rule.samples[arm] - sum(counts[arm]) for arm in Arm if arm.model == model and rule.matters(arm, counts)
        )
    return left


async def _sample_arm(sampler: Sampler, chunk: Chunk, arm: Arm, mode: Mode, state: _State, pace: Pace) -> None:
    folder, tried = sampler.folder(chunk, arm), state.tried
    tried.clear()
    store = await asyncio.to_thread(open_store, folder, mode.key())
    # replies of a run that ended before it graded them, and those that its judge left
    await grade_new(state.verdicts[arm], store, folder, state.rows, sampler.grading, again=True)
    number = 0
    while wanted := _wanted(sampler.rule, arm, state):
        number += 1
        name = f"{chunk.name}, {arm.value.replace('_', ' with ')}, round {number}"
        most = samples_left(sampler.rule, {row: state.counts(row) for row in state.rows}, arm.model)
        asked = sum(map(len, wanted.values()))
        left = pace.remaining(most)
        sampler.tell(f"{name}: {asked:,} samples; {most:,} left at most in this chunk{f', {left}' if left else ''}")
        started = time.monotonic()
        await _ask(sampler, chunk, mode, store, wanted, name)
        pace.asked, pace.seconds = pace.asked + asked, pace.seconds + time.monotonic() - started
        tried.update((row, sample) for row, samples in wanted.items() for sample in samples)
        await grade_new(state.verdicts[arm], store, folder, state.rows, sampler.grading)


def _wanted(rule: Rule, arm: Arm, state: _State) -> dict[str, tuple[int, ...]]:
    """Samples of the next round by row: those that failed in an earlier run first, then further ones."""
    found: dict[str, tuple[int, ...]] = {}
    for row in state.rows:
        counts = state.counts(row)
        if not rule.matters(arm, counts):
            continue
        known = state.verdicts[arm].of(row)
        open_ones = [
            sample
            for sample in range(rule.samples[arm])
            # an answer without a verdict stays on record: asking again would draw the same reply
            if (sample not in known or _failed(known[sample].requests)) and (row, sample) not in state.tried
        ]
        if samples := tuple(open_ones[: rule.least(arm, counts)]):
            found[row] = samples
    return found


async def _ask(
    sampler: Sampler, chunk: Chunk, mode: Mode, store: Store, wanted: Mapping[str, tuple[int, ...]], name: str
) -> None:
    def items() -> Iterator[Item]:
        for row in rows_of(chunk):
            yield from (item_of(row, sample) for sample in wanted.get(row.id, ()))

    dispatch = Dispatch(
        store=store,
        items=items,
        answerer=mode,
        images=ImageFolder(sampler.out),
        most_at_once=mode.most_at_once,
        again=mode.settings.evaluation.asked_again,
    )
    await ask_all(dispatch, _Telling(name, sum(map(len, wanted.values())), sampler.tell))


class _Telling:
    """Progress of a round, told every `TOLD_EVERY_S` seconds; called after each record."""

    def __init__(self, name: str, total: int, tell: Tell) -> None:
        self._name, self._tell = name, tell
        self._before: int | None = None
        self._told_at = time.monotonic()
        self._progress = Progress(total, 0, self._told_at)

    def __call__(self, writer: Writer) -> None:
        if self._before is None:  # the records have earlier rounds too
            self._before = writer.done - 1
        if (now := time.monotonic()) - self._told_at >= TOLD_EVERY_S:
            self._told_at = now
            self._tell(f"{self._name}: {self._progress.line(writer.done - self._before, now, writer.statuses)}")


def _failed(requests: int) -> bool:
    """True for a sample whose reply never came."""
    return requests == 0


def _light(row: CanonicalRow[Source]) -> CanonicalRow[Source]:
    """Row without its images, as grading needs it."""
    return CanonicalRow(row.messages, (), row.data_source, row.ability, row.ground_truth, row.style, row.extra_info)
