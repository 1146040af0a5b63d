"""Resample on correct: more rollouts than are trained on, of which clean right and a fair sample of wrong ones stay.

GRPO-RoC of rStar2-Agent (arXiv 2508.20722). Of 2G rollouts G are kept: half of the wrong ones, drawn evenly, and for
the rest right ones, drawn with a probability inversely proportional to

    p_err + p_format,  p_err = failed calls / calls (0.5 without a call),
                       p_format = 1 without an answer tag, else min(1, (answer tags - 1) / turns)

Both halves are kept in proportion here, whatever the number drawn. `CLEAN` is added to the sum, which may be 0.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from codedance_verl.reward.config import RewardConfig
from codedance_verl.reward.terms import CustomValue, is_masked
from codedance_verl.reward.tool_calls import CallKind, call_kinds, count
from codedance_verl.types import Grade, Trajectory

CLEAN = 0.1
NO_CALL = 0.5


def penalty(trajectory: Trajectory) -> float:
    """Returns p_err + p_format of a rollout, 0 (clean) to 2."""
    kinds = call_kinds(trajectory)
    made = count(kinds)
    errors = count(kinds, CallKind.FAILED, CallKind.INVALID) / made if made else NO_CALL
    tags = sum(turn.text.count("<answer>") for turn in trajectory.turns)
    form = min(1.0, (tags - 1) / max(len(trajectory.turns), 1)) if tags else 1.0
    return errors + form


def resample_on_correct(
    trajectories: Sequence[Trajectory],
    grades: Sequence[Grade],
    keep: int,
    config: RewardConfig,
    chance: random.Random,
    custom: Sequence[CustomValue] | None = None,
) -> list[int]:
    """Returns the indices of the `keep` rollouts to train on, in order.

    Masked rollouts (`custom` as in `score_group`) stand in only where too few others were drawn. All are kept where no
    more than `keep` were drawn.
    """
    pairs = list(zip(trajectories, grades, strict=True))
    masked = [k for k, pair in enumerate(pairs) if is_masked(*pair, config, custom[k] if custom else None)]
    right = [k for k, (_, grade) in enumerate(pairs) if grade.correct and k not in masked]
    wrong = [k for k, (_, grade) in enumerate(pairs) if not grade.correct and k not in masked]
    candidates = len(right) + len(wrong)
    if candidates <= keep:
        return sorted([*right, *wrong, *masked[: keep - candidates]])
    # the share of wrong ones stays that of the draw, so that mu of what is kept says how hard the question is
    wrong_kept = min(round(len(wrong) * keep / candidates), len(wrong))
    wrong_kept = max(wrong_kept, keep - len(right))  # where right ones are short, wrong ones fill up
    weights = [1 / (penalty(trajectories[k]) + CLEAN) for k in right]
    return sorted([*chance.sample(wrong, wrong_kept), *_drawn(right, weights, keep - wrong_kept, chance)])


def _drawn(items: Sequence[int], weights: Sequence[float], number: int, chance: random.Random) -> list[int]:
    """Draws without replacement, each time in proportion to the weights of what is left."""
    left, left_weights, drawn = list(items), list(weights), []
    for _ in range(number):
        (place,) = chance.choices(range(len(left)), left_weights)
        drawn.append(left.pop(place))
        del left_weights[place]
    return drawn
