"""Sampling of one chunk by one model: rounds, each of which asks as many samples as no outcome could make needless."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from codedance_verl.data.fields import Source
from codedance_verl.data.rows import CanonicalRow
from codedance_verl.filtering.models import Mode, Tell, check_recorded
from codedance_verl.filtering.rows import Chunk, item_of, rows_of
from codedance_verl.filtering.rule import Arm, Count, Rule
from codedance_verl.filtering.verdicts import Grading, Verdicts, grade_new, load
from codedance_verl.harness.dispatch import Dispatch, ask_all
from codedance_verl.harness.reply import ImageFolder
from codedance_verl.harness.score_run import TOLD_EVERY_S
from codedance_verl.harness.settings import EvalSettings
from codedance_verl.records.progress import Progress
from codedance_verl.records.record import Status
from codedance_verl.records.store import KEY_FILE, Store, existing_store, open_store
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

    def counts(self, row: str, rule: Rule) -> dict[Arm, Count]:
        return {arm: found.count(row, rule.samples[arm]) for arm, found in self.verdicts.items()}


def on_record(sampler: Sampler, chunk: Chunk) -> dict[Arm, Verdicts]:
    """Verdicts that are kept of a chunk."""
    return {arm: load(sampler.folder(chunk, arm), arm, sampler.grading) for arm in Arm}


async def recorded_chunk(sampler: Sampler, chunk: Chunk, settings: EvalSettings, model: str) -> int:
    """Grades what a run before has left of a chunk, and returns how many samples the model may still be asked.

    Raises ChangedKey: the records are of another model or sampling.
    """
    state = _state(sampler, chunk)
    for arm in Arm:
        folder = sampler.folder(chunk, arm)
        if arm.model == model and (folder / KEY_FILE).is_file():
            store = existing_store(folder)
            check_recorded(store, settings)
            await grade_new(state.verdicts[arm], store, folder, state.rows, sampler.grading, again=True)
    return _most_left(sampler.rule, model, settings.evaluation.asked_again, state)


async def sample_chunk(sampler: Sampler, chunk: Chunk, modes: Mapping[bool, Mode], model: str, pace: Pace) -> None:
    """Samples the questions of a chunk until each is settled or the model has given all its samples.

    Raises what `ask_all` does: the endpoint is down. What was answered is on record.
    """
    state = await asyncio.to_thread(_state, sampler, chunk)
    for arm in Arm:
        if arm.model == model and sampler.rule.samples[arm]:
            await _sample_arm(sampler, chunk, arm, modes[arm.tools], state, pace)


def _state(sampler: Sampler, chunk: Chunk) -> _State:
    return _State({row.id: _light(row.row) for row in rows_of(chunk)}, on_record(sampler, chunk))


async def _sample_arm(sampler: Sampler, chunk: Chunk, arm: Arm, mode: Mode, state: _State, pace: Pace) -> None:
    folder, again = sampler.folder(chunk, arm), mode.settings.evaluation.asked_again
    state.tried.clear()
    store = await asyncio.to_thread(open_store, folder, mode.key())
    number = 0
    while wanted := _wanted(sampler.rule, arm, again, state):
        number += 1
        name = f"{chunk.name}, {arm.value.replace('_', ' with ')}, round {number}"
        most = _most_left(sampler.rule, arm.model, again, state)
        asked = sum(map(len, wanted.values()))
        left = pace.remaining(most)
        sampler.tell(f"{name}: {asked:,} samples; {most:,} left at most in this chunk{f', {left}' if left else ''}")
        started = time.monotonic()
        await _ask(sampler, chunk, mode, store, wanted, name)
        pace.asked, pace.seconds = pace.asked + asked, pace.seconds + time.monotonic() - started
        state.tried.update((row, sample) for row, samples in wanted.items() for sample in samples)
        await grade_new(state.verdicts[arm], store, folder, state.rows, sampler.grading)


def _wanted(rule: Rule, arm: Arm, again: Collection[Status], state: _State) -> dict[str, list[int]]:
    """Samples of the next round by row."""
    found: dict[str, list[int]] = {}
    for row in state.rows:
        if open_ones := _open(rule, arm, row, again, state):
            found[row] = open_ones[: rule.least(arm, state.counts(row, rule))]
    return found


def _most_left(rule: Rule, model: str, again: Collection[Status], state: _State) -> int:
    """Samples that a model may still be asked, at most."""
    arms = [arm for arm in Arm if arm.model == model]
    return sum(len(_open(rule, arm, row, again, state)) for arm in arms for row in state.rows)


def _open(rule: Rule, arm: Arm, row: str, again: Collection[Status], state: _State) -> list[int]:
    """Samples of a row that matter and can be asked: further ones, and those that failed in an earlier run."""
    if not rule.matters(arm, state.counts(row, rule)):
        return []
    known = state.verdicts[arm].of(row)
    return [
        sample
        for sample in range(rule.samples[arm])
        # an answer without a verdict stays on record: asking again would draw the same reply
        if (sample not in known or known[sample].status in again) and (row, sample) not in state.tried
    ]


async def _ask(
    sampler: Sampler, chunk: Chunk, mode: Mode, store: Store, wanted: Mapping[str, Sequence[int]], name: str
) -> None:
    # nobody else tells such a model in which form to answer
    plain = mode.settings.evaluation.loop == "plain"

    def items() -> Iterator[Item]:
        for row in rows_of(chunk):
            yield from (item_of(row, sample, plain) for sample in wanted.get(row.id, ()))

    dispatch = Dispatch(
        store=store,
        items=items,
        answerer=mode,
        # apart from the images of the questions, which have a store in the folder itself
        images=ImageFolder(sampler.out / RECORDS),
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


def _light(row: CanonicalRow[Source]) -> CanonicalRow[Source]:
    """Row without its images, as grading needs it."""
    return CanonicalRow(row.messages, (), row.data_source, row.ability, row.ground_truth, row.style, row.extra_info)
