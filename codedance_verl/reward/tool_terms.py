"""Tool terms of the sequence reward: for each one its parameters and its formula.

A formula takes the parameters, what calls were made, whether the answer is right, the difficulty d of the group and the
weights of the record's source; it returns a number that is added to accuracy and format. A new term is a node here, a
member of `ToolTerm`, a formula in `_FORMULAS`, and a file `conf/reward_preset/tool_term/<name>.yaml`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from codedance_verl.config.node import Node
from codedance_verl.reward.tool_calls import CallKind, count

if TYPE_CHECKING:
    from codedance_verl.reward.config import RewardConfig, Weights

Factor = Annotated[float, Field(ge=0, le=10)]
HalfSaturation = Annotated[float, Field(ge=0, le=100)]


class NoTerm(Node):
    """No tool term."""

    name: Literal["none"] = "none"


class ShareTerm(Node):
    """Share of calls that succeeded, with the constants of the paper and of its published code."""

    name: Literal["share"] = "share"
    tool_coef_correct: Factor = 1.5
    """Factor c where the answer is right."""
    tool_coef_incorrect: Factor = 0.5
    """Factor c where the answer is wrong."""
    math_tool_coef_correct: Factor = 1.5
    """`tool_coef_correct` of records of `math_sources`."""
    math_tool_coef_incorrect: Factor = 0.5
    """`tool_coef_incorrect` of records of `math_sources`."""


class AdaptiveTerm(Node):
    """Bonus of helpful calls on hard groups with a right answer, cost of every call on easy groups."""

    name: Literal["adaptive"] = "adaptive"
    tool_coef_correct: Factor = 0.5
    """Factor c of the bonus."""
    math_tool_coef_correct: Factor = 0.5
    """`tool_coef_correct` of records of `math_sources`."""
    easy_cost: Factor = 2.0
    """Factor of the cost of calls on easy groups."""
    bonus_half_saturation: HalfSaturation = 0.25
    """Helpful calls at which half of the bonus is earned; at 0 the first earns all."""
    cost_half_saturation: HalfSaturation = 1.0
    """Calls at which half of the cost is due; at 0 the first costs all."""


class PerCallTerm(Node):
    """Bonus of every successful call. The paper does not state its size."""

    name: Literal["per_call"] = "per_call"
    call_bonus: Factor = 0.1
    """Reward of a successful call."""


class GatedTerm(Node):
    """Immediate rewards of calls, where the outcome passes a gate (G-RA, arXiv 2508.10548)."""

    name: Literal["gated"] = "gated"
    call_bonus: Factor = 0.1
    """Reward of a successful call; a failed one has `failed_turn`."""
    min_base_reward: float = Field(1.0, ge=-10, le=10)
    """Calls count where accuracy and format with their weights add up to at least this."""


class BenefitTerm(Node):
    """Successful calls by the tool benefit of the question (AT-GRPO of AdaTooler-V, arXiv 2512.16918)."""

    name: Literal["benefit"] = "benefit"
    benefit_weight: Factor = 0.6
    """Weight alpha of the term."""
    benefit_sharpness: float = Field(2.0, ge=0, le=100)
    """Sharpness gamma of its maximum."""
    benefit_calls: int = Field(6, ge=1, le=100)
    """Successful calls n_max at which the benefit counts in full."""


ToolTerm = NoTerm | ShareTerm | AdaptiveTerm | PerCallTerm | GatedTerm | BenefitTerm


@dataclass(frozen=True)
class ToolTermInputs:
    """One rollout as the tool terms see it.

    `base` is accuracy and format with their weights, `benefit` that of calling for the question (`benefit.py`), 0 where
    it is unknown.
    """

    kinds: Sequence[CallKind | None]
    right: bool
    base: float
    difficulty: float
    weights: Weights
    config: RewardConfig
    benefit: float = 0.0


def tool_term(inputs: ToolTermInputs) -> float:
    """Returns the tool term of a rollout, in units of the score."""
    term = inputs.config.tool_term
    return _FORMULAS[type(term)](term, inputs)


def success_rate(kinds: Sequence[CallKind | None]) -> float:
    """N_succ / N_total over the calls that were run, 0 to 1; 0 where none was.

    A call that could not be read was not run. A cell that does nothing is a call but no success.
    """
    called = count(kinds) - count(kinds, CallKind.INVALID)
    return success_count(kinds) / called if called else 0.0


def success_count(kinds: Sequence[CallKind | None]) -> int:
    """N_succ: calls that ran and did something."""
    return count(kinds, CallKind.HELPFUL, CallKind.REPEATED)


def bonus_share(kinds: Sequence[CallKind | None], half: float) -> float:
    """(s / n) s / (s + half) of s helpful calls among n of any kind, 0 to 1; 0 where none helped.

    Rises with every helpful call, by less each time, and falls with every other one.
    """
    # s / n keeps spam from paying: a repeated or failed call lowers it; s / (s + half) bounds what more calls can earn
    helped, made = count(kinds, CallKind.HELPFUL), count(kinds)
    return helped / made * helped / (helped + half) if helped else 0.0


def cost_share(made: int, half: float) -> float:
    """n / (n + half) of n calls, 0 to 1: rises with every call."""
    return made / (made + half) if made else 0.0  # 0 / 0 without calls where half is 0


def _none(_: NoTerm, __: ToolTermInputs) -> float:
    return 0.0


def _share(term: ShareTerm, inputs: ToolTermInputs) -> float:
    """R_seq = c d(mu) N_succ / N_total (CodeDance, sequence-level BAT); c depends on whether the answer is right."""
    weights = inputs.weights  # c by the source of the record, from `term`
    factor = weights.tool_coef_correct if inputs.right else weights.tool_coef_incorrect
    return factor * inputs.difficulty * success_rate(inputs.kinds)


def _adaptive(term: AdaptiveTerm, inputs: ToolTermInputs) -> float:
    """c d (s / n) s / (s + bonus_half_saturation) where d > 0 and the answer is right, 0 where it is wrong.

    Where d <= 0: easy_cost d n / (n + cost_half_saturation), right or wrong: every call costs, whatever became of it.
    """
    if inputs.difficulty <= 0:
        # failed calls too: else failing would be the cheap way to call where calls cost
        return term.easy_cost * inputs.difficulty * cost_share(count(inputs.kinds), term.cost_half_saturation)
    if not inputs.right:
        return 0.0  # a bonus here would lift a wrong answer with a call above one without
    return inputs.weights.tool_coef_correct * inputs.difficulty * bonus_share(inputs.kinds, term.bonus_half_saturation)


def _per_call(term: PerCallTerm | GatedTerm, inputs: ToolTermInputs) -> float:
    """call_bonus N_succ, right or wrong: the paper's ablation, which pays for spam."""
    return term.call_bonus * success_count(inputs.kinds)


def _gated(term: GatedTerm, inputs: ToolTermInputs) -> float:
    """Sum of the immediate rewards of all calls if accuracy and format reach the gate, else 0.

    call_bonus for a call that succeeded, failed_turn for one that failed.
    """
    if inputs.base < term.min_base_reward:
        return 0.0
    failures = count(inputs.kinds, CallKind.FAILED, CallKind.INVALID)
    return _per_call(term, inputs) + inputs.config.failed_turn * failures


def _benefit(term: BenefitTerm, inputs: ToolTermInputs) -> float:
    """alpha dS exp(-gamma ((n - n_max) / n_max)^2) of n successful calls; dS is the benefit of the question.

    Negative where calls harm, and then the more so the more calls there are, up to n_max of them.
    """
    missing = success_count(inputs.kinds) / term.benefit_calls - 1  # -1 without a call, 0 with n_max of them
    return term.benefit_weight * inputs.benefit * math.exp(-term.benefit_sharpness * missing**2)


_FORMULAS: dict[type[Node], Callable[[Any, ToolTermInputs], float]] = {
    NoTerm: _none,
    ShareTerm: _share,
    AdaptiveTerm: _adaptive,
    PerCallTerm: _per_call,
    GatedTerm: _gated,
    BenefitTerm: _benefit,
}
