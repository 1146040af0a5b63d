"""Choice of the trajectories that a report shows, read with their images from the log."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from codedance_verl.data.conditions import SAMPLED
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
    sampled = (item for item in TrajectoryReader(sft_log, "val") if item.variant == SAMPLED)
    failed = {item.record_id for item in sampled if _wrong(item)}
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
    """The sampled trajectory of the highest rank; among equals the one whose record comes first by name."""
    sampled = (item for item in TrajectoryReader(log, "val") if item.variant == SAMPLED)
    ranked = ((found, item) for item in sampled if (found := rank(item)) is not None)
    # negated, so that the smallest has the highest rank
    best = min(ranked, key=lambda pair: ([-part for part in pair[0]], pair[1].record_id), default=None)
    return best[1] if best else None


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
