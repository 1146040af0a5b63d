"""Discovery of code on kinds whose demonstrations show none: the first training rollouts that call it, its spread."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from codedance_verl.evaluation.effects import DiscoveryPoint, FirstSeen, KindDiscovery, SeedDiscovery, TrajectoryName
from codedance_verl.evaluation.examples import Example, ExampleGroup
from codedance_verl.evaluation.training import steps_of
from codedance_verl.trajectories.reader import TrajectoryReader
from codedance_verl.trajectories.schema import TrajectoryRecord
from codedance_verl.types import FinishReason, Verdict

KEPT = 5
"""First trajectories that are named."""


@dataclass(frozen=True)
class _Rollout:
    name: TrajectoryName
    kind: str
    called: bool
    right: bool
    order: tuple[float, int]
    """Time of writing and number in the group: the first of a step is the one written first."""


def discovery(kinds: Sequence[str], seeds: Sequence[tuple[int, Path]]) -> dict[str, KindDiscovery]:
    """Use of code on these kinds by seed, from the training rollouts of each (seed, log folder).

    Steps that retention has deleted from a log (`trajectories.max_gib`) are not seen.

    Raises:
        UserError: a log is missing, or a line of it is broken.
    """
    if not kinds:
        return {}
    found = {seed: _read(log, frozenset(kinds)) for seed, log in seeds}
    return {kind: KindDiscovery(tuple(_seed(seed, steps, kind) for seed, steps in found.items())) for kind in kinds}


def discovery_examples(found: dict[str, KindDiscovery], logs: dict[int, Path]) -> tuple[ExampleGroup, ...]:
    """The first rollout with a call and the first with a right answer behind it, of every kind and seed that has them.

    `logs`: log folder by seed.
    """
    return tuple(
        ExampleGroup(f"{kind}, seed {seed.seed}", tuple(_examples(seed, logs[seed.seed])))
        for kind, discovered in found.items()
        for seed in discovered.seeds
        if seed.first_call is not None
    )


def _examples(seed: SeedDiscovery, log: Path) -> Iterator[Example]:
    shown: set[TrajectoryName] = set()
    for label, first in (("first call", seed.first_call), ("first call with a right answer", seed.first_right)):
        # the first call may have the right answer at once
        if first is not None and first.trajectories[0] not in shown:
            shown.add(first.trajectories[0])
            if (record := _find(log, first.trajectories[0])) is not None:
                yield Example(f"{label}: step {first.step}", record, log)


def _find(log: Path, name: TrajectoryName) -> TrajectoryRecord | None:
    """The rollout of that name; of a step that was repeated the last try."""
    reader = TrajectoryReader(log, "train")
    found = None
    for file in reader.files():
        if file.step == name.step:
            matching = [
                item
                for item in reader.read(file.path)
                if (item.record_id, item.sample) == (name.record_id, name.sample)
            ]
            found = matching[-1] if matching else found
    return found


def _read(log: Path, kinds: frozenset[str]) -> dict[int, dict[str, list[_Rollout]]]:
    """Rollouts of these kinds by step and kind; infrastructure faults and branches of other rollouts are left out."""
    steps: dict[int, dict[str, list[_Rollout]]] = {}
    for step, rollouts in steps_of(log, lambda record: _reduced(record) if record.kind in kinds else None):
        steps[step] = defaultdict(list)
        for rollout in rollouts:
            if rollout is not None:
                steps[step][rollout.kind].append(rollout)
    return steps


def _reduced(record: TrajectoryRecord) -> _Rollout | None:
    if record.finish is FinishReason.INFRASTRUCTURE or record.branch is not None:
        return None
    return _Rollout(
        name=TrajectoryName(record.step, record.record_id, record.sample, record.group),
        kind=record.kind,
        called=any(execution.executed for execution in record.executions),
        right=record.grade.verdict is Verdict.CORRECT,
        order=(record.written_at or 0.0, record.sample),
    )


def _seed(seed: int, steps: dict[int, dict[str, list[_Rollout]]], kind: str) -> SeedDiscovery:
    calls = {step: [item for item in rollouts[kind] if item.called] for step, rollouts in steps.items()}
    right = {step: [item for item in rollouts if item.right] for step, rollouts in calls.items()}
    points = tuple(
        _point(step, len(rollouts[kind]), len(calls[step]), len(right[step]))
        for step, rollouts in steps.items()
        if rollouts[kind]
    )
    return SeedDiscovery(seed, _first(calls), _first(right), points)


def _point(step: int, rollouts: int, called: int, right: int) -> DiscoveryPoint:
    return DiscoveryPoint(step, rollouts, called, right, called / rollouts, right / rollouts)


def _first(by_step: dict[int, list[_Rollout]]) -> FirstSeen | None:
    step = min((step for step, found in by_step.items() if found), default=None)
    if step is None:
        return None
    ordered = sorted(by_step[step], key=lambda item: item.order)
    return FirstSeen(step, tuple(item.name for item in ordered[:KEPT]))
