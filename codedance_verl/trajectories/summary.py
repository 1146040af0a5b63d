"""What the index holds of a trajectory: the columns that lists, filters and figures are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass, fields
from typing import Any

from codedance_verl.trajectories.lines import items, mapping, number, text, whole

MAX_TEXT = 300
"""Characters of question and answer that a list shows and the search looks at."""

MAX_NAME = 100


@dataclass(frozen=True)
class Summary:
    """One trajectory in a list. `correct` is 1, 0, or None where it was not graded; `seconds` are wall seconds."""

    step: int
    split: str
    batch: str
    sample: int
    record: str
    kind: str
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
    def of(cls, record: Mapping[str, Any], *, step: int, split: str) -> Summary:
        """Of a line; `step` and `split` are those of its file and hold where the line has none."""
        turns = [mapping(turn) for turn in items(record.get("turns"))]
        executions = [mapping(turn["execution"]) for turn in turns if isinstance(turn.get("execution"), Mapping)]
        statuses = [_short(execution.get("status")) or "unknown" for execution in executions]
        reward = mapping(record.get("reward"))
        return cls(
            step=whole(record["step"]) if isinstance(record.get("step"), int) else step,
            split=split,
            batch=_short(record.get("group")),
            sample=whole(record.get("sample")),
            record=_short(record.get("record_id")),
            kind=_short(record.get("kind")) or _short(record.get("data_source")),
            correct=_correct(record),
            score=number(reward.get("score")),
            finish=_short(record.get("finish")),
            turns=len(turns),
            calls=len(executions),
            failed=sum(status not in ("ok", "no_output") for status in statuses),
            images=sum(len(items(execution.get("images"))) for execution in executions),
            masked=int(reward.get("masked") is True),
            seconds=number(mapping(record.get("timing")).get("total_s")),
            statuses=f",{','.join(sorted(set(statuses)))}," if statuses else "",
            question=text(record.get("question"))[:MAX_TEXT],
            answer=text(record.get("answer"))[:MAX_TEXT],
        )

    def values(self) -> tuple[Any, ...]:
        return astuple(self)


COLUMNS = tuple(field.name for field in fields(Summary))


def _short(value: object) -> str:
    return text(value)[:MAX_NAME]


def _correct(record: Mapping[str, Any]) -> int | None:
    verdict = mapping(record.get("grade")).get("verdict")
    if verdict in ("correct", "wrong"):
        return int(verdict == "correct")
    if "grade" in record:
        return None
    accuracy = number(mapping(record.get("reward")).get("accuracy"))
    return None if accuracy is None else int(accuracy > 0.5)
