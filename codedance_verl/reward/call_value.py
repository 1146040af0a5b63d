"""Estimate of what a call is worth on a question: P(right | call) - P(right | no call), from a handful of rollouts.

Plain functions over counts, for groups of training rollouts and for the ledger of a report
(`codedance_verl.evaluation.ledger`) alike. TACO (arXiv 2606.30251, our reading of its abstract) takes the difference
between answers probed with and without a call of the same rollout; here the two sides are different rollouts of a
question. The shrinkage is ours: a group has about eight rollouts, and not every group has both sides.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

PRIOR_ROLLOUTS = 2.0
"""Weight of the prior in rollouts a side. With 4 rollouts on a side, a third of the estimate is the prior's."""


@dataclass(frozen=True)
class CallCounts:
    """Rollouts of a question, or of several, by whether code ran, and those of them with a right answer."""

    called: int = 0
    called_right: int = 0
    not_called: int = 0
    not_called_right: int = 0

    def __add__(self, other: CallCounts) -> CallCounts:
        return CallCounts(*(mine + theirs for mine, theirs in zip(self._parts(), other._parts(), strict=True)))

    def __sub__(self, other: CallCounts) -> CallCounts:
        return CallCounts(*(mine - theirs for mine, theirs in zip(self._parts(), other._parts(), strict=True)))

    def _parts(self) -> tuple[int, int, int, int]:
        return self.called, self.called_right, self.not_called, self.not_called_right


@dataclass(frozen=True)
class CallValue:
    """Worth of a call.

    Attributes:
        value: right_called - right_not_called, in [-1, 1].
        error: standard error of `value`, that of two independent shares.
        right_called, right_not_called: estimated shares of right answers with a call and without, in [0, 1].
        basis: sides with a rollout: "both", "called", "not_called" or "none". Where one is missing its share is the
            prior's, so `value` says more about other questions than about this one.
    """

    value: float
    error: float
    right_called: float
    right_not_called: float
    basis: str


def count_calls(called: Sequence[bool], right: Sequence[bool]) -> CallCounts:
    """Counts of rollouts: for each, whether code ran and whether the answer is right.

    Raises:
        ValueError: the two differ in length.
    """
    pairs = list(zip(called, right, strict=True))
    with_call, without = [ok for ran, ok in pairs if ran], [ok for ran, ok in pairs if not ran]
    return CallCounts(len(with_call), sum(with_call), len(without), sum(without))


def total(counts: Iterable[CallCounts]) -> CallCounts:
    """The sum of counts."""
    return sum(counts, CallCounts())


def call_value(own: CallCounts, others: CallCounts | None = None, prior_rollouts: float = PRIOR_ROLLOUTS) -> CallValue:
    """Shrunken estimate from the rollouts of one question.

    Each side is a Beta-binomial mean: (right + m * prior) / (rollouts + m), m = `prior_rollouts`. The prior is the
    share of right answers on that side of `others`, questions that are alike (of the same kind, say); it is itself
    shrunk to the share of both sides together in the same way. Without `others` it is the share of both sides of the
    question itself: a group that was sampled on one side alone then has value 0.

    Args:
        own: rollouts of the question.
        others: rollouts of questions like it, its own not among them.
        prior_rollouts: weight of the prior, above 0.
    """
    alike = others if others is not None and others.called + others.not_called else None
    overall = _share(alike or own)
    prior_called = prior_not_called = overall
    if alike is not None:
        prior_called = _shrunken(alike.called_right, alike.called, overall, prior_rollouts)
        prior_not_called = _shrunken(alike.not_called_right, alike.not_called, overall, prior_rollouts)
    with_call = _shrunken(own.called_right, own.called, prior_called, prior_rollouts)
    without = _shrunken(own.not_called_right, own.not_called, prior_not_called, prior_rollouts)
    variance = _variance(with_call, own.called + prior_rollouts) + _variance(without, own.not_called + prior_rollouts)
    return CallValue(with_call - without, math.sqrt(variance), with_call, without, _basis(own))


def _share(counts: CallCounts) -> float:
    rollouts = counts.called + counts.not_called
    return (counts.called_right + counts.not_called_right) / rollouts if rollouts else 0.5


def _shrunken(right: int, rollouts: int, prior: float, prior_rollouts: float) -> float:
    return (right + prior_rollouts * prior) / (rollouts + prior_rollouts)


def _variance(share: float, weight: float) -> float:
    """Variance of a Beta of this mean and weight, one success and one failure added: else 0 of 8 would be certain."""
    share, weight = (share * weight + 1) / (weight + 2), weight + 2
    return share * (1 - share) / (weight + 1)


def _basis(counts: CallCounts) -> str:
    match counts.called > 0, counts.not_called > 0:
        case True, True:
            return "both"
        case True, False:
            return "called"
        case False, True:
            return "not_called"
    return "none"
