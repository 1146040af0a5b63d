"""How tool use enters the sequence reward: one function for each `ToolTerm`.

All take what calls were made, whether the answer is right, the difficulty d of the group, the weights of the record's
source and the constants; all return a number that is added to accuracy and format.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from codedance_verl.reward.config import RewardConfig, ToolTerm, Weights
from codedance_verl.reward.tool_calls import CallKind, count


@dataclass(frozen=True)
class ToolTermInputs:
    """One rollout as the tool terms see it. `base` is accuracy and format with their weights."""

    kinds: Sequence[CallKind | None]
    right: bool
    base: float
    difficulty: float
    weights: Weights
    config: RewardConfig


def tool_term(situation: ToolTermInputs) -> float:
    """The tool term of a rollout, in units of the score."""
    return _TERMS[situation.config.tool_term](situation)


def success_rate(kinds: Sequence[CallKind | None]) -> float:
    """N_succ / N_total over the calls that were run, 0 to 1; 0 where none was.

    A call that could not be read was not run. A cell that does nothing is a call but no success.
    """
    called = count(kinds) - count(kinds, CallKind.INVALID)
    return count(kinds, CallKind.HELPFUL, CallKind.REPEATED) / called if called else 0.0


def bonus_share(kinds: Sequence[CallKind | None], half: float) -> float:
    """(s / n) s / (s + half) of s helpful calls among n of any kind, 0 to 1; 0 where none helped.

    Rises with every helpful call, by less each time, and falls with every other one.
    """
    helped, made = count(kinds, CallKind.HELPFUL), count(kinds)
    return helped / made * helped / (helped + half) if helped else 0.0


def cost_share(made: int, half: float) -> float:
    """n / (n + half) of n calls, 0 to 1: rises with every call."""
    return made / (made + half) if made else 0.0


def _none(_: ToolTermInputs) -> float:
    return 0.0


def _share(situation: ToolTermInputs) -> float:
    """R_seq = c d(mu) N_succ / N_total (CodeDance, sequence-level BAT); c depends on whether the answer is right."""
    weights = situation.weights
    factor = weights.sequence_right if situation.right else weights.sequence_wrong
    return factor * situation.difficulty * success_rate(situation.kinds)


def _adaptive(situation: ToolTermInputs) -> float:
    """Where d > 0: c d (s / n) s / (s + bonus_half) with a right answer, else 0. Where d <= 0: easy_cost d n / (n +
    cost_half), right or wrong: every call costs, whatever became of it."""
    config = situation.config
    if situation.difficulty <= 0:
        return config.easy_cost * situation.difficulty * cost_share(count(situation.kinds), config.cost_half)
    if not situation.right:
        return 0.0
    return situation.weights.sequence_right * situation.difficulty * bonus_share(situation.kinds, config.bonus_half)


def _per_call(situation: ToolTermInputs) -> float:
    """call_bonus N_succ, right or wrong: the paper's ablation, which pays for spam."""
    return situation.config.call_bonus * count(situation.kinds, CallKind.HELPFUL, CallKind.REPEATED)


def _gated(situation: ToolTermInputs) -> float:
    """Sum of the immediate rewards of all calls if accuracy and format reach the gate, else 0 (G-RA, arXiv 2508.10548):
    call_bonus for one that succeeded, failed_turn for one that failed."""
    config = situation.config
    if situation.base < config.gate:
        return 0.0
    failures = count(situation.kinds, CallKind.FAILED, CallKind.INVALID)
    return _per_call(situation) + config.failed_turn * failures


_TERMS: dict[ToolTerm, Callable[[ToolTermInputs], float]] = {
    ToolTerm.NONE: _none,
    ToolTerm.SHARE: _share,
    ToolTerm.ADAPTIVE: _adaptive,
    ToolTerm.PER_CALL: _per_call,
    ToolTerm.GATED: _gated,
}
