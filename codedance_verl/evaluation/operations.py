"""Operations of rollouts and of demonstrations: the cells of a trajectory log or an SFT file, analysed and compared."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

from codedance_verl.data.parquet import batches, open_parquet
from codedance_verl.errors import UserError
from codedance_verl.formats import DEFAULT_FORMAT, FORMATS, get_format
from codedance_verl.operations.analysis import Analysis, analyse
from codedance_verl.operations.catalogue import Category
from codedance_verl.operations.lift import GroupMember, Lift, within_question_lift
from codedance_verl.operations.novelty import Novelty, Repertoire, Usage, new_in, novelty, repertoire, usage
from codedance_verl.trajectories.reader import TrajectoryReader
from codedance_verl.trajectories.schema import TrajectoryRecord
from codedance_verl.types import FinishReason, Verdict

_CACHED = 20_000
"""Different sessions whose analysis is kept: rollouts of a group often write the same code."""


@dataclass(frozen=True)
class RolloutOperations:
    """Operations of one rollout.

    Attributes:
        question: record and variant; rollouts with the same one are a group.
        right: None where the answer has no verdict.
    """

    question: str
    step: int
    sample: int
    right: bool | None
    analysis: Analysis


def read_rollouts(
    log_folder: Path, split: str, wanted: Callable[[TrajectoryRecord], bool] = lambda _record: True
) -> Iterator[RolloutOperations]:
    """Operations of the rollouts of one split of a log; infrastructure faults and branches are left out.

    A rollout that was written twice, as its step was repeated, counts once, the last one.

    Raises:
        UserError: there is no log, or a line of it is broken.
    """
    reader = TrajectoryReader(log_folder, split)
    files = reader.files()
    for step in sorted({file.step for file in files}):
        found = {
            (record.record_id, record.variant, record.sample): of_rollout(record)
            for file in files
            if file.step == step
            for record in reader.read(file.path)
            if record.finish is not FinishReason.INFRASTRUCTURE and record.branch is None and wanted(record)
        }
        yield from found.values()


def of_rollout(record: TrajectoryRecord) -> RolloutOperations:
    """Operations of a rollout; a cell that was refused is left out, one that failed has no live operation."""
    cells = [
        (turn.code, turn.execution.succeeded)
        for turn in record.turns
        if turn.code is not None and turn.execution is not None and turn.execution.executed
    ]
    verdict = record.grade.verdict
    return RolloutOperations(
        question=f"{record.step}/{record.group or record.record_id}/{record.variant or ''}",
        step=record.step,
        sample=record.sample,
        right=None if verdict is Verdict.UNGRADED else verdict is Verdict.CORRECT,
        analysis=_analysed(tuple(code for code, _ in cells), tuple(ran for _, ran in cells)),
    )


@lru_cache(maxsize=_CACHED)
def _analysed(cells: tuple[str, ...], ran: tuple[bool, ...] | None = None) -> Analysis:
    return analyse(cells, ran)


def read_demonstrations(path: Path, format_name: str = DEFAULT_FORMAT) -> Iterator[Analysis]:
    """Operations of each demonstration of a parquet file for SFT, from the `messages` of its rows.

    `format_name`: format of its calls. All of its cells are taken to have run.

    Raises:
        UserError: the file is missing, broken, or has no column `messages`.
    """
    file = open_parquet(path)
    if "messages" not in file.schema_arrow.names:
        raise UserError(f"{path}: not a file of demonstrations, it has no column messages")
    for batch in batches(path, file, ("messages",)):
        for row in batch.to_pylist():
            yield analysed_demonstration(row["messages"], format_name)


def analysed_demonstration(messages: Sequence[Mapping[str, object]], format_name: str = DEFAULT_FORMAT) -> Analysis:
    """Operations of one demonstration, all of whose cells are taken to have run."""
    turn_format = get_format(format_name)
    return _analysed(tuple(_cells(messages, lambda text: turn_format.parse(text).code)))


def _cells(messages: Sequence[Mapping[str, object]], code_of: Callable[[str], str | None]) -> Iterator[str]:
    for message in messages:
        content = message["content"]
        if message["role"] == "assistant" and isinstance(content, str) and (code := code_of(content)) is not None:
            yield code


@dataclass(frozen=True)
class OperationFigures:
    """Operations of the rollouts of a model beside demonstrations.

    Attributes:
        usage: operations of the rollouts.
        novelty: what the demonstrations do not have.
        lift: within questions, of the rollouts with any operation on the image, by category, and with anything new.
    """

    usage: Usage
    novelty: Novelty
    lift: Mapping[str, Lift]


def operation_figures(rollouts: Iterable[RolloutOperations], known: Repertoire) -> OperationFigures:
    """Figures of rollouts against the repertoire of demonstrations. Raises UserError for no rollouts."""
    found = list(rollouts)
    if not found:
        raise UserError("there is no rollout to count operations of; check the log and the split")
    sessions = [rollout.analysis for rollout in found]
    counted = usage(sessions)
    having: dict[str, Callable[[Analysis], bool]] = {
        "any on the image": lambda session: any(item.image for item in session.operations),
        "anything new": lambda session: bool(new_in(session, known)),
    }
    for category in Category:
        # as a default: the lambda is called when the loop has gone on to other categories
        having[str(category)] = lambda session, category=category: (
            bool(session.cells) and category in session.categories
        )  # type: ignore[misc]
    return OperationFigures(
        counted, novelty(sessions, known), {name: lift_of(found, has) for name, has in having.items()}
    )


def _has(category: Category, session: Analysis) -> bool:
    return category in session.categories


def lift_of(rollouts: Iterable[RolloutOperations], has: Callable[[Analysis], bool]) -> Lift:
    """Lift within questions of the rollouts for which `has` holds; those without a verdict are left out."""
    return within_question_lift(
        GroupMember(rollout.question, has(rollout.analysis), rollout.right)
        for rollout in rollouts
        if rollout.right is not None
    )


def known_from(path: Path, format_name: str = DEFAULT_FORMAT) -> Repertoire:
    """Repertoire of a file of demonstrations. Raises UserError."""
    return repertoire(read_demonstrations(path, format_name))


def main() -> None:
    """Prints the figures of one log against a file of demonstrations as JSON."""
    parser = argparse.ArgumentParser(description="Counts operations in the code of rollouts.")
    parser.add_argument("log", type=Path, help="folder `trajectories` of a run")
    parser.add_argument("--sft", type=Path, required=True, help="parquet file of demonstrations")
    parser.add_argument("--split", default="train", choices=("train", "val"), help="rollouts to count (default: train)")
    parser.add_argument("--format", default=DEFAULT_FORMAT, choices=sorted(FORMATS), help="of the demonstrations")
    options = parser.parse_args()
    try:
        figures = operation_figures(read_rollouts(options.log, options.split), known_from(options.sft, options.format))
    except UserError as error:
        parser.exit(2, f"error: {error}\n")
    print(json.dumps(asdict(figures), indent=1))


if __name__ == "__main__":
    main()
