"""Reader of rollouts for `codedance reward explain`: JSON lines, written by hand, by another system, or by a run.

A line has `group`, `data_source`, `question`, `ground_truth`, `turns` [{`text`, `execution`: null or {`status`,
`stdout`, `images`}}] and `finish`. `format` names how calls are written (`formats/`), else it is taken from the
text; `style` says how the answer is graded (`grading/matchers.py`), `extra_info` is the record's own, for graders and
reward terms of the user's, `grade` holds a verdict that was given already, `sample` is the rollout's number in its
group, and `branch` what it has kept of another (`types.Branch`). Further keys are kept and ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from codedance_verl.errors import UserError
from codedance_verl.formats import FORMATS, get_format
from codedance_verl.grading.matchers import RULE
from codedance_verl.trajectories.lines import numbered_lines
from codedance_verl.trajectories.schema import MalformedRecord, convert, loads
from codedance_verl.types import Branch, Execution, ExecutionStatus, FinishReason, Grade, Trajectory, Turn, Verdict

MAX_TURNS = 10_000


class _Execution(msgspec.Struct):
    status: ExecutionStatus
    stdout: str | None = None
    images: list[Any] | int | None = None


class _Turn(msgspec.Struct):
    text: str
    execution: _Execution | None


class _Grade(msgspec.Struct):
    verdict: Verdict
    rung: str | None = None
    evidence: str | None = None


class _Rollout(msgspec.Struct):
    """Fields read of a line: fewer than `schema.TrajectoryRecord` has, so that lines can be written by hand."""

    group: str | int
    data_source: str
    question: str
    ground_truth: str | int | float
    turns: list[_Turn]
    finish: FinishReason
    format: str | None = None
    style: str | None = None
    extra_info: dict[str, Any] | None = None
    grade: _Grade | None = None
    sample: Any = None
    branch: Branch | None = None


@dataclass(frozen=True)
class RolloutLine:
    """One line: its number in the file from 1, the record as it was, its group as text, the typed trajectory, and the
    verdict that the line brings, if it does, and the number of the rollout in its group, to which branches refer;
    below 0 where the line states none."""

    number: int
    record: dict[str, Any]
    group: str
    trajectory: Trajectory
    grade: Grade | None = None
    sample: int = -1


def read_rollouts(path: Path) -> list[RolloutLine]:
    """All rollouts of a file, blank lines left out.

    Raises:
        UserError: the file cannot be read, holds no rollout, or a line is none; names file and line.
    """
    lines = []
    try:
        for number, line in numbered_lines(path):
            if line.strip():
                lines.append(_read(line, number))
    except MalformedRecord as error:
        raise UserError(f"{path}:{number}: not a rollout: {str(error)[:300]}; mend or delete the line") from None
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); give a file of rollouts, one JSON a line"
        ) from None
    if not lines:
        raise UserError(f"{path}: holds no rollout; give one JSON object a line")
    return lines


def _read(line: bytes, number: int) -> RolloutLine:
    record = loads(line, finite=True)
    rollout = convert(record, _Rollout)
    grade = rollout.grade
    given = None if grade is None else Grade(grade.verdict, grade.rung or "", grade.evidence or "")
    sample = rollout.sample if isinstance(rollout.sample, int) else -number
    return RolloutLine(number, record, str(rollout.group), _trajectory(rollout, record, number), given, sample)


def _trajectory(rollout: _Rollout, record: Mapping[str, Any], number: int) -> Trajectory:
    if not 0 < len(rollout.turns) <= MAX_TURNS:
        raise MalformedRecord(f"turns: has {len(rollout.turns)} items, it must have 1 to {MAX_TURNS}")
    texts = [turn.text for turn in rollout.turns]
    written = _format(rollout.format, texts)
    parsed = [get_format(written).parse(text) for text in texts]
    turns = tuple(
        # One token for each turn and one for its feedback: a line says nothing of tokens.
        Turn(turn.text, 2 * index, 2 * index + 1, found.code, _execution(turn.execution))
        for index, (turn, found) in enumerate(zip(rollout.turns, parsed, strict=True))
    )
    return Trajectory(
        record_id=str(record.get("record_id", number)),
        data_source=rollout.data_source,
        question=rollout.question,
        ground_truth=str(rollout.ground_truth),
        turns=turns,
        finish=rollout.finish,
        answer=parsed[-1].answer,
        format=written,
        style=rollout.style or RULE,
        extra_info=rollout.extra_info or {},
        branch=rollout.branch,
    )


def _format(named: str | None, texts: list[str]) -> str:
    """The format that the line names, else the first whose calls are in the text, else the default."""
    if named and named not in FORMATS:
        raise MalformedRecord(f"format: {named[:80]!r} is none of {', '.join(FORMATS)}")
    found = (name for name, known in FORMATS.items() if any(known.parse(text).code is not None for text in texts))
    return named or next(found, next(iter(FORMATS)))


def _execution(execution: _Execution | None) -> Execution | None:
    return None if execution is None else Execution(execution.status, execution.stdout or "")
