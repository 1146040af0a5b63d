"""Lift within a question: accuracy of the rollouts of a group that have something, less that of those that have not.

Questions that differ in how hard they are do not enter: each is compared with itself. The lift is no effect: the model
chose which rollouts have it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from codedance_verl.statistics.differences import ClusterDifferences, bootstrap_difference


@dataclass(frozen=True)
class GroupMember:
    """Rollout of a group: whether it has what is looked at, and whether its answer is right."""

    group: str
    has: bool
    right: bool


@dataclass(frozen=True)
class Lift:
    """Mean over the groups that have both kinds of rollouts of accuracy with less accuracy without.

    Attributes:
        value: from -1 to 1; None where no group has both.
        low, high: 95 % interval, a bootstrap over groups; None for fewer than two of them.
        groups: those with both.
        left_out: those with one kind alone.
        accuracy_with, accuracy_without: means over the same groups.
    """

    value: float | None
    low: float | None
    high: float | None
    groups: int
    left_out: int
    accuracy_with: float | None
    accuracy_without: float | None


def within_question_lift(members: Iterable[GroupMember], seed: int = 0) -> Lift:
    """Lift of what `GroupMember.has` marks."""
    groups: dict[str, tuple[list[bool], list[bool]]] = {}
    for member in members:
        groups.setdefault(member.group, ([], []))[member.has].append(member.right)
    pairs = [(_mean(having), _mean(others)) for others, having in groups.values() if others and having]
    left_out = len(groups) - len(pairs)
    if not pairs:
        return Lift(None, None, None, 0, left_out, None, None)
    differences = [having - other for having, other in pairs]
    # each group counts alike, whatever the number of its rollouts is
    sides = ClusterDifferences(np.array(differences), np.ones(len(pairs)))
    low, high = bootstrap_difference(sides, seed) if len(pairs) > 1 else (None, None)
    return Lift(
        _mean(differences),
        low,
        high,
        len(pairs),
        left_out,
        _mean([having for having, _ in pairs]),
        _mean([other for _, other in pairs]),
    )


def _mean(values: list[bool] | list[float]) -> float:
    return sum(values) / len(values)
