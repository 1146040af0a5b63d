"""Choice of the trajectories that a report shows, read with their images from the log."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from codedance_verl.data.conditions import SAMPLED
from codedance_verl.evaluation.outcomes import last_step
from codedance_verl.trajectories.reader import TrajectoryReader
from codedance_verl.trajectories.schema import TrajectoryRecord
from codedance_verl.types import Verdict

Rank = Callable[[TrajectoryRecord], tuple[int, ...] | None]
"""Larger is more instructive; None rules a trajectory out."""


@dataclass(frozen=True)
class Example:
    """A trajectory with the log folder that holds its images, and the model that produced it."""

    model: str
    trajectory: TrajectoryRecord
    folder: Path


@dataclass(frozen=True)
class ExampleGroup:
    """One or more trajectories of one question in a report. Empty `examples`: the run has none."""

    title: str
    examples: tuple[Example, ...]


def choose_examples(sft_log: Path, rl_log: Path) -> tuple[ExampleGroup, ExampleGroup, ExampleGroup]:
    """A hard question solved by code, an easy one answered directly, and one that RL got right where SFT failed."""
    by_code = _best(rl_log, _solved_by_code)
    directly = _best(rl_log, _answered_directly)
    failed = {record_id for (record_id, _), rank in _ranks(sft_log, _wrong).items() if rank is not None}
    # The third example is another question than the first.
    shown = by_code.record_id if by_code else None
    learned = _best(rl_log, lambda item: _solved_by_code(item) if item.record_id in failed - {shown} else None)
    before = _best(sft_log, lambda item: _wrong(item) if learned and item.record_id == learned.record_id else None)
    return (
        ExampleGroup("Hard: solved by code", _examples([("after RL", by_code, rl_log)])),
        ExampleGroup("Easy: answered directly", _examples([("after RL", directly, rl_log)])),
        ExampleGroup(
            "Learned by RL: the same question before and after",
            _examples([("before RL", before, sft_log), ("after RL", learned, rl_log)]) if before else (),
        ),
    )


def _examples(found: Sequence[tuple[str, TrajectoryRecord | None, Path]]) -> tuple[Example, ...]:
    return tuple(Example(model, trajectory, folder) for model, trajectory, folder in found if trajectory is not None)


def _best(log: Path, rank: Rank) -> TrajectoryRecord | None:
    """The trajectory of the highest rank; among equals the one whose record and sample come first."""
    ranks = _ranks(log, rank)
    # negated, so that the smallest has the highest rank
    ranked = [([-part for part in found], name) for name, found in ranks.items() if found is not None]
    if not ranked:
        return None
    _, best = min(ranked)
    *_, last = (item for item in _sampled(log) if (item.record_id, item.sample) == best)
    return last


def _ranks(log: Path, rank: Rank) -> dict[tuple[str, int], tuple[int, ...] | None]:
    """Rank of each sampled rollout of the last step by record and sample; the last try of a repeated one counts."""
    return {(item.record_id, item.sample): rank(item) for item in _sampled(log)}


def _sampled(log: Path) -> Iterator[TrajectoryRecord]:
    reader = TrajectoryReader(log, "val")
    rollouts = (item for file in last_step(reader) for item in reader.read(file.path))
    return (item for item in rollouts if item.variant == SAMPLED)


def _solved_by_code(item: TrajectoryRecord) -> tuple[int, ...] | None:
    """Right through code that ran; rather with images in the feedback, on a real photo, and with output."""
    ran = [execution for execution in item.executions if execution.succeeded]
    if item.difficulty == "easy" or item.grade.verdict is not Verdict.CORRECT or not ran:
        return None
    images = sum(len(execution.images) for execution in ran)
    return (int(images > 0), int("photo" in item.kind), int(any(execution.stdout for execution in ran)))


def _answered_directly(item: TrajectoryRecord) -> tuple[int, ...] | None:
    if item.difficulty != "easy" or item.grade.verdict is not Verdict.CORRECT or item.executions:
        return None
    return (int(item.reward.format == 0),)


def _wrong(item: TrajectoryRecord) -> tuple[int, ...] | None:
    return (0,) if item.grade.verdict is Verdict.WRONG else None
