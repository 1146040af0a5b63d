"""Samples of items with what became of them: reply, official score, score of this project's grader."""

from __future__ import annotations

from dataclasses import dataclass

from codedance_verl.harness.reply import Reply
from codedance_verl.records.record import Status
from codedance_verl.tasks.item import Item, Score


@dataclass(frozen=True)
class Measured:
    """Sample of an item.

    Attributes:
        item: what was asked.
        sample: number of the reply, from 0.
        status: what came of it; `reason` says why, for a failure. An item that nobody asked yet has no `Measured`.
        reply: None where there is none.
        official: score by the benchmark's rule; None where it was not asked for, or there is no reply.
        ours: score by the grader of this project, as `official`.
    """

    item: Item
    sample: int
    status: Status
    reason: str = ""
    reply: Reply | None = None
    official: Score | None = None
    ours: Score | None = None
