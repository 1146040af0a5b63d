"""Numbers of each rollout that figures need, without its text, and the rollouts that a test set should have had."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from codedance_verl.data.fields import BadRow
from codedance_verl.data.names import RecordNames
from codedance_verl.data.parquet import batches, open_parquet
from codedance_verl.data.rows import mapping_of
from codedance_verl.errors import UserError
from codedance_verl.trajectories.reader import TrajectoryReader
from codedance_verl.trajectories.runs import LogFile
from codedance_verl.trajectories.schema import TrajectoryRecord
from codedance_verl.types import FinishReason, Verdict, label_of

_OF_A_QUESTION = (
    "data_source",
    "reward_model.ground_truth",
    *(f"extra_info.{name}" for name in ("record_id", "index", "variant", "kind", "difficulty")),
)
_CUT_OFF = (FinishReason.LENGTH, FinishReason.TIME_LIMIT)

_Name = tuple[str, str | None, int]
"""Record, variant and sample of a rollout."""


@dataclass(frozen=True)
class Outcome:
    """One rollout in numbers.

    Attributes:
        record_id: the question; pairs rollouts of different models and variants.
        variant: "sampled", "greedy" or a control of `metrics.py` for validation rollouts.
        executed: cells that ran, however they ended.
        succeeded: cells that ran to their end.
        turns: assistant turns.
        well_formed: the format term of the reward is 0.
    """

    record_id: str
    sample: int
    variant: str | None
    kind: str
    difficulty: str | None
    finish: FinishReason
    verdict: Verdict
    executed: int
    succeeded: int
    turns: int
    well_formed: bool
    score: float

    @property
    def infrastructure(self) -> bool:
        """True when the rollout broke for reasons that are not the model's; no figure may count it."""
        return self.finish is FinishReason.INFRASTRUCTURE

    @property
    def judged(self) -> bool:
        """True when the model ended the rollout and its answer has a verdict."""
        return not self.infrastructure and self.verdict is not Verdict.UNGRADED


def outcome_of(trajectory: TrajectoryRecord) -> Outcome:
    """The numbers of one rollout."""
    executed = [execution for execution in trajectory.executions if execution.executed]
    return Outcome(
        record_id=trajectory.record_id,
        sample=trajectory.sample,
        variant=trajectory.variant,
        kind=trajectory.kind,
        difficulty=trajectory.difficulty,
        finish=trajectory.finish,
        verdict=trajectory.grade.verdict,
        executed=len(executed),
        succeeded=sum(execution.succeeded for execution in executed),
        turns=len(trajectory.turns),
        # a masked rollout has no format term; one that was cut off has no answer either
        well_formed=trajectory.reward.format == 0 and trajectory.finish not in _CUT_OFF,
        score=trajectory.reward.score,
    )


@dataclass(frozen=True)
class Question:
    """A row of a test file: which question, in which variant; `truth` is None where the row has no single answer."""

    record_id: str
    variant: str | None
    kind: str
    difficulty: str | None
    truth: str | None = None


@dataclass(frozen=True)
class EvaluationRun:
    """The rollouts of one model on a test set, all of one step; a repeated rollout counts once, the newest.

    `missing` are rows of the test file that left no rollout at all at that step; `cut_off` counts lines of it that a
    killed writer left unfinished.
    """

    outcomes: tuple[Outcome, ...]
    missing: tuple[Question, ...]
    cut_off: int


def read_evaluation(log_folder: Path, test_file: Path) -> EvaluationRun:
    """Read the last validated step of `<run>/trajectories` and compare it with the rows of the test file.

    Rollouts of earlier steps are of another model: what the last step lacks is missing.

    Raises:
        UserError: there is no log, its last step holds no rollout, or one that is not in the test file.
    """
    reader = TrajectoryReader(log_folder, "val")
    outcomes = _newest(item for file in last_step(reader) for item in reader.read(file.path))
    asked = read_questions(test_file)
    rolled = {(item.record_id, item.variant) for item in outcomes.values()}
    # by text, since a variant may be None, which has no order
    strange = sorted(rolled - {(item.record_id, item.variant) for item in asked}, key=str)
    if strange:
        raise UserError(
            f"{log_folder}: holds a rollout of {strange[0][0]} ({strange[0][1]}), which {test_file} does not have; "
            "evaluate again with this test file"
        )
    if not outcomes:
        raise UserError(f"{log_folder}: the last step holds no finished validation rollout; run the evaluation again")
    missing = tuple(item for item in asked if (item.record_id, item.variant) not in rolled)
    return EvaluationRun(tuple(outcomes.values()), missing, reader.cut_off)


def last_step(reader: TrajectoryReader) -> list[LogFile]:
    """Files of the last step of a log in the order of writing, empty where there is none. Raises UserError."""
    files = reader.files()
    return [file for file in files if file.step == files[-1].step]


def read_checkpoints(log_folder: Path) -> dict[int, tuple[Outcome, ...]]:
    """Validation rollouts by the step they were made at; a repeated rollout of a step counts once, the newest.

    Raises:
        UserError: there is no log, or a line of it is broken.
    """
    reader = TrajectoryReader(log_folder, "val")
    found: dict[int, dict[_Name, Outcome]] = {}
    for file in reader.files():
        found.setdefault(file.step, {}).update(_newest(reader.read(file.path)))
    return {step: tuple(outcomes.values()) for step, outcomes in found.items()}


def _newest(trajectories: Iterable[TrajectoryRecord]) -> dict[_Name, Outcome]:
    """Outcomes of one step by name: later lines replace earlier ones, as files come in the order of writing."""
    return {(item.record_id, item.variant, item.sample): item for item in map(outcome_of, trajectories)}


def read_questions(test_file: Path) -> tuple[Question, ...]:
    """The rows of a test file in the record schema, named as the rollout names them.

    Reads neither prompts nor images, and what is read in batches: `extra_info` may hold images of its own. Raises
    UserError.
    """
    try:
        file = open_parquet(test_file)
        if not {"data_source", "extra_info"} & set(file.schema_arrow.names):
            raise BadRow("it has neither data_source nor extra_info")
        position = file.schema_arrow.get_field_index("extra_info")
        plain = position >= 0 and not pa.types.is_struct(file.schema_arrow.field(position).type)
        # Of a struct only the columns that name a question are read; a plain `extra_info` is read whole.
        wanted = ("data_source", "reward_model.ground_truth", "extra_info") if plain else _OF_A_QUESTION
        rows = [row for batch in batches(test_file, file, wanted) for row in batch.to_pylist()]
        names = RecordNames()
        return tuple(_question(row, names, test_file, number) for number, row in enumerate(rows))
    except BadRow as error:
        raise UserError(f"{test_file}: not a test file in the record schema ({error}); make it again") from None


def _question(row: Mapping[str, Any], names: RecordNames, test_file: Path, number: int) -> Question:
    info, source = mapping_of(row.get("extra_info"), "extra_info"), row.get("data_source")
    reward_model = row.get("reward_model")
    truth = reward_model.get("ground_truth") if isinstance(reward_model, dict) else None
    return Question(
        record_id=names.name(str(source or ""), info, test_file, number),
        variant=label_of(info.get("variant")),
        kind=str(info.get("kind") or source),
        difficulty=label_of(info.get("difficulty")),
        truth=truth if isinstance(truth, str) else None,
    )
