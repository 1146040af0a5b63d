"""Rounds of a synthesis: in each, questions are asked once, and every reply is on record before the next one.

Rounds have record stores of their own, so that a later one asks only what the checks of the earlier ones left, and a
run that was killed asks no sample again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from codedance_verl.harness.at_once import direct_item
from codedance_verl.harness.dispatch import Dispatch, ask_all
from codedance_verl.harness.listing import Listed
from codedance_verl.harness.reply import ImageFolder
from codedance_verl.harness.run import key_of
from codedance_verl.harness.score_run import TOLD_EVERY_S
from codedance_verl.harness.settings import EvalSettings
from codedance_verl.harness.ways import Way
from codedance_verl.records.progress import Progress
from codedance_verl.records.record import plain_id
from codedance_verl.records.store import KEY_FILE, Store, existing_store, open_store
from codedance_verl.records.writer import Writer
from codedance_verl.synthesis.kinds import item_for, kind_to_ask
from codedance_verl.synthesis.settings import Synthesis
from codedance_verl.synthesis.teachers import Numbered
from codedance_verl.tasks.item import Item

RECORDS = "records"
"""Folder of the records, in that of the synthesis."""

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Round:
    """Number of a round from 0, of those without tools or of those with them."""

    number: int
    direct: bool

    @property
    def name(self) -> str:
        """Name of its folder."""
        return f"{'direct' if self.direct else 'tools'}-{self.number}"


def rounds_of(synthesis: Synthesis) -> tuple[list[Round], list[Round]]:
    """Rounds without tools, and those with them, in order."""
    direct = [Round(number, True) for number in range(synthesis.direct)]
    return direct, [Round(number, False) for number in range(synthesis.tries)]


@dataclass(frozen=True)
class Questions:
    """Questions of one file, as the rounds ask them."""

    benchmark: Listed
    synthesis: Synthesis
    out: Path

    def folder(self, which: Round) -> Path:
        """Folder of the records of a round."""
        return self.out / RECORDS / self.benchmark.task.name / which.name

    def items(self, which: Round, wanted: Collection[str] | None = None) -> Iterator[Item]:
        """Items as a round asks them, those with the ids `wanted`; None for all."""
        for item in self.benchmark.items():
            if wanted is None or plain_id(item) in wanted:
                yield self.asked(item, which)

    def asked(self, item: Item, which: Round) -> Item:
        """Item as a round asks it."""
        if which.direct:
            return direct_item(item)
        return item_for(item, kind_to_ask(item.id, which.number, self.synthesis.kinds))


async def ask_round(
    questions: Questions, which: Round, teacher: Way, wanted: Collection[str] | None, tell: Tell
) -> Store:
    """Asks what is left of a round, and returns its records.

    Raises:
        ChangedKey: the records were made with another teacher, other settings or questions.
        UserError: the endpoint is down (`harness.dispatch.EndpointDown`).
    """
    settings = _seeded(teacher.settings, which.number)
    key = key_of(settings, questions.benchmark.replies, teacher.answerer.describe())
    store = await asyncio.to_thread(open_store, questions.folder(which), key)
    again = settings.evaluation.asked_again
    # before anything is asked: a changed question is to cost nothing
    plan = await asyncio.to_thread(lambda: store.plan(questions.items(which, wanted), again))
    name = f"{questions.benchmark.task.name}, {which.name}"
    tell(f"{name}: {plan.total:,} questions, {plan.done:,} on record, {plan.left:,} to ask")
    if plan.left:
        answerer = teacher.answerer
        most = min(settings.evaluation.concurrency or answerer.most_at_once, answerer.most_at_once)
        dispatch = Dispatch(
            store=store,
            items=lambda: questions.items(which, wanted),
            answerer=Numbered(answerer, which.number),
            images=ImageFolder(questions.out),  # one for all rounds, as tries often show the same crop
            most_at_once=most,
            again=again,
        )
        await ask_all(dispatch, Telling(name, plan.total, plan.done, tell))
    return store


def recorded_round(questions: Questions, which: Round) -> Store | None:
    """Records of a round that was asked before; None where there are none. Raises UserError: they cannot be read."""
    folder = questions.folder(which)
    return existing_store(folder) if (folder / KEY_FILE).is_file() else None


class Telling:
    """Progress of a round, told every `TOLD_EVERY_S` seconds; called after each record."""

    def __init__(self, name: str, total: int, done: int, tell: Tell) -> None:
        self._name, self._tell = name, tell
        self._progress, self._told_at = Progress(total, done, time.monotonic()), time.monotonic()

    def __call__(self, writer: Writer) -> None:
        if (now := time.monotonic()) - self._told_at >= TOLD_EVERY_S:
            self._told_at = now
            self._tell(f"{self._name}: {self._progress.line(writer.done, now, writer.statuses)}")


def _seeded(settings: EvalSettings, number: int) -> EvalSettings:
    """Settings whose key states the seed of the round."""
    seed = settings.evaluation.seed
    return settings if seed is None else replace(settings, evaluation=settings.evaluation.replace(seed=seed + number))
