"""Summary of a trajectory in the index: the columns that lists, filters and figures are made of."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

from codedance_verl.trajectories.schema import NO_STEP, TrajectoryRecord
from codedance_verl.types import Verdict

MAX_TEXT = 300
"""Characters of question and answer that a list shows and the search looks at."""

MAX_NAME = 100


@dataclass(frozen=True)
class Summary:
    """One trajectory in a list. `correct` is 1, 0, or None where it was not graded; `seconds` are wall seconds."""

    step: int
    split: str
    group: str
    sample: int
    record: str
    kind: str
    variant: str
    control: str
    correct: int | None
    score: float | None
    finish: str
    turns: int
    calls: int
    failed: int
    images: int
    masked: int
    seconds: float | None
    statuses: str
    question: str
    answer: str

    @classmethod
    def of(cls, record: TrajectoryRecord, *, step: int, split: str) -> Summary:
        """Summary of a record; `step` and `split` are those of its file, and `step` holds where the line has none."""
        executions = record.executions
        statuses = {_short(execution.status) or "unknown" for execution in executions}
        return cls(
            step=step if record.step == NO_STEP else record.step,
            split=split,
            group=_short(record.group),
            sample=record.sample,
            record=_short(record.record_id),
            kind=_short(record.kind or record.data_source),
            variant=_short(record.variant or ""),
            control=_short(record.control or ""),
            correct=_correct(record),
            score=finite(record.reward.score),
            finish=_short(record.finish),
            turns=len(record.turns),
            calls=len(executions),
            failed=sum(not execution.succeeded for execution in executions),
            images=sum(len(execution.images) for execution in executions),
            masked=int(record.reward.masked),
            seconds=finite(record.timing.total_s),
            # Commas on both ends: a filter looks for `,status,` within.
            statuses=f",{','.join(sorted(statuses))}," if statuses else "",
            question=record.question[:MAX_TEXT],
            answer=(record.answer or "")[:MAX_TEXT],
        )

    def values(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in COLUMNS)


COLUMNS = tuple(field.name for field in fields(Summary))
QUOTED_COLUMNS = ", ".join(f'"{name}"' for name in COLUMNS)
"""As SQL has them: `group` is a word of its own there."""


def finite(value: float | None) -> float | None:
    """None for a number that a damaged line lacks, and for one that is not finite."""
    return value if value is not None and math.isfinite(value) else None


def _short(value: str) -> str:
    return str(value)[:MAX_NAME]


def _correct(record: TrajectoryRecord) -> int | None:
    if record.grade.verdict in (Verdict.CORRECT, Verdict.WRONG):
        return int(record.grade.verdict == Verdict.CORRECT)
    accuracy = finite(record.reward.accuracy)
    # verl's lines have no verdict, but an accuracy.
    return None if record.grade.verdict or accuracy is None else int(accuracy > 0.5)
