"""Numbers of each rollout that figures need, without its text, and the rollouts that a test set should have had."""

from __future__ import annotations

from collections.abc import Mapping
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
from codedance_verl.trajectories.schema import TrajectoryRecord
from codedance_verl.types import FinishReason, Verdict, label_of

_OF_A_QUESTION = (
    "data_source",
    "reward_model.ground_truth",
    *(f"extra_info.{name}" for name in ("record_id", "index", "variant", "kind", "difficulty")),
)
_CUT_OFF = (FinishReason.LENGTH, FinishReason.TIME_LIMIT)


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
    """The rollouts of one model on a test set; a repeated rollout counts once, the newest.

    `missing` are rows of the test file that left no rollout at all; `cut_off` counts lines of the log that a killed
    writer left unfinished.
    """

    outcomes: tuple[Outcome, ...]
    missing: tuple[Question, ...]
    cut_off: int


def read_evaluation(log_folder: Path, test_file: Path) -> EvaluationRun:
    """Read the validation rollouts of `<run>/trajectories` and compare them with the rows of the test file.

    Raises:
        UserError: there is no log, it holds no rollout of the test file, or one that is not in the test file.
    """
    reader = TrajectoryReader(log_folder, "val")
    # Later lines replace earlier ones: files come in the order of writing.
    outcomes = {(item.record_id, item.variant, item.sample): item for item in map(outcome_of, reader)}
    asked = read_questions(test_file)
    rolled = {(item.record_id, item.variant) for item in outcomes.values()}
    strange = sorted(rolled - {(item.record_id, item.variant) for item in asked}, key=str)
    if strange:
        raise UserError(
            f"{log_folder}: holds a rollout of {strange[0][0]} ({strange[0][1]}), which {test_file} does not have; "
            "evaluate again with this test file"
        )
    if not outcomes:
        raise UserError(f"{log_folder}: holds no finished validation rollout; run the evaluation again")
    missing = tuple(item for item in asked if (item.record_id, item.variant) not in rolled)
    return EvaluationRun(tuple(outcomes.values()), missing, reader.cut_off)


def read_checkpoints(log_folder: Path) -> dict[int, tuple[Outcome, ...]]:
    """Validation rollouts by the step they were made at; a repeated rollout of a step counts once, the newest.

    Raises:
        UserError: there is no log, or a line of it is broken.
    """
    reader = TrajectoryReader(log_folder, "val")
    found: dict[int, dict[tuple[str, str | None, int], Outcome]] = {}
    for file in reader.files():
        step = found.setdefault(file.step, {})
        step |= {(item.record_id, item.variant, item.sample): item for item in map(outcome_of, reader.read(file.path))}
    return {step: tuple(outcomes.values()) for step, outcomes in found.items()}


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
