"""Redrawing of calls under a kept thought: which call is drawn again, and what of the rollouts is trained then.

AXPO (arXiv 2605.28774). Where every rollout of a group that made a call is wrong, the call of one of them, the
*source*, is drawn again: *branches* begin with all that the source wrote up to the opening of that call. The source is
the rollout whose call has the lowest mean probability of its tokens. Credit is parted, so that no token gets two:

    branch   trained behind the kept part; compared with the other branches of its source
    source   trained up to the opening of the call, with the score of recovery; compared with the other rollouts
    others   as without branches; the source counts with the score that it was drawn with

The score of recovery is that of the best right branch, and the source's own where no branch is right. For rewards of 0
and 1 that is the paper's indicator; for graded ones it is this project's reading.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from codedance_verl.reward.config import RewardConfig
from codedance_verl.reward.encoding import Cut
from codedance_verl.reward.terms import CustomValue, score_group
from codedance_verl.types import Branch, Grade, RewardTerms, Trajectory


class RedrawAt(StrEnum):
    """Call of a rollout that may be drawn again; a rollout without a failed call has its first one in either case."""

    FIRST_CALL = "first_call"
    FAILED_CALL = "failed_call"


@dataclass(frozen=True)
class CallPlace:
    """Place of a call in a response.

    Attributes:
        turn: number of its turn, from 0.
        token: tokens of the response up to the end of what opens it.
        failed: it did not run to its end.
        probability: mean probability of its tokens when they were sampled, 0 to 1.
    """

    turn: int
    token: int
    failed: bool
    probability: float


def choose_call(
    rollouts: Sequence[Trajectory],
    grades: Sequence[Grade],
    masked: Sequence[bool],
    calls: Sequence[Sequence[CallPlace]],
    at: RedrawAt,
    chance: random.Random,
) -> Branch | None:
    """Returns the call of a group to draw again; None where a rollout with a call is right, or none has a call.

    Args:
        rollouts: of a group, all drawn from the start.
        grades: of the rollouts.
        masked: rollouts that say nothing of the model; they are no sources and keep no group from a redraw.
        calls: of each rollout, in order.
        at: call of a rollout that is taken.
        chance: decides between calls that are equally probable.
    """
    using = [k for k, rollout in enumerate(rollouts) if rollout.executions and not masked[k]]
    if any(grades[k].correct for k in using):
        return None
    candidates = [(k, _call(calls[k], at)) for k in using if calls[k]]
    if not candidates:
        return None
    chance.shuffle(candidates)
    parent, call = min(candidates, key=lambda item: item[1].probability)
    return Branch(parent, call.turn, call.token)


def _call(calls: Sequence[CallPlace], at: RedrawAt) -> CallPlace:
    failed = [call for call in calls if call.failed]
    return failed[0] if at is RedrawAt.FAILED_CALL and failed else calls[0]


def score_with_branches(
    trajectories: Sequence[Trajectory], grades: Sequence[Grade], config: RewardConfig, custom: Sequence[CustomValue]
) -> list[RewardTerms]:
    """Scores a group, the branches of each source as a group of their own; terms in the order of `trajectories`.

    Branches begin where a rollout went wrong, so their accuracy says nothing of the question's difficulty.
    """
    groups = defaultdict[int | None, list[int]](list)
    for k, trajectory in enumerate(trajectories):
        groups[None if trajectory.branch is None else trajectory.branch.parent].append(k)
    scored: dict[int, RewardTerms] = {}
    for group in groups.values():
        found = score_group(
            [trajectories[k] for k in group], [grades[k] for k in group], config, [custom[k] for k in group]
        )
        scored |= zip(group, found, strict=True)
    return [scored[k] for k in range(len(trajectories))]


def cuts_of(
    trajectories: Sequence[Trajectory], terms: Sequence[RewardTerms], numbers: Sequence[int] | None = None
) -> list[Cut | None]:
    """Returns what is left untrained of each rollout; None for one that is trained whole.

    Args:
        trajectories: of one group.
        terms: of the rollouts.
        numbers: of the rollouts in their group, to which `Branch.parent` refers; by default their places.
    """
    cuts: list[Cut | None] = [
        None if one.branch is None else Cut(one.branch.turn, one.branch.token) for one in trajectories
    ]
    places = {number: place for place, number in enumerate(numbers or range(len(trajectories)))}
    drawn = defaultdict[Branch, list[RewardTerms]](list)
    for trajectory, own in zip(trajectories, terms, strict=True):
        # masked branches say nothing of their source: one with no other branch is trained as it was drawn
        if trajectory.branch is not None and not own.masked:
            drawn[trajectory.branch].append(own)
    for branch, found in drawn.items():
        if (source := places.get(branch.parent)) is not None:
            recovered = [item.score for item in found if item.accuracy]
            cuts[source] = Cut(branch.turn, branch.token, max(recovered, default=terms[source].score))
    return cuts
