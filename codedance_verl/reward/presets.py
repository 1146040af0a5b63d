"""The presets by name; `conf/reward_preset/<name>.yaml` holds the same constants, `robust.yaml` what each means."""

from __future__ import annotations

from dataclasses import replace

from codedance_verl.reward.config import FormatRule, GroupMean, RewardConfig, ToolTerm, TurnCredit
from codedance_verl.reward.difficulty import DifficultyForm

ROBUST = RewardConfig()
"""The idea of the paper without the holes of its arithmetic; the default."""

PAPER = RewardConfig(
    preset="paper",
    difficulty_form=DifficultyForm.SIGMOID,
    mask_finishes=(),
    tool_term=ToolTerm.SHARE,
    sequence_right=1.5,
    sequence_wrong=0.5,
    math_sequence_right=1.5,
    math_sequence_wrong=0.5,
    easy_cost=0.0,
    bonus_half=0.0,
    cost_half=0.0,
    failed_turn=-0.5,
    invalid_turn=0.0,
    idle_turn=0.0,
    recovered_turn=0.0,
    turn_credit=TurnCredit.BATCH_Z,
    turn_discount=0.2,
    turn_weight=0.2,
    turn_limit=100.0,
    min_group_std=0.0,
)
"""The formulas of arXiv 2512.17312."""

RELEASE = replace(
    PAPER,
    preset="release",
    difficulty_form=DifficultyForm.TANH,
    group_mean=GroupMean.SCORE,
    format_rule=FormatRule.TAGS,
    math_sources=("math", "thinklite"),
    math_accuracy_weight=1.2,
    math_format_weight=0.4,
    math_sequence_right=2.0,
    math_sequence_wrong=1.0,
)
"""The arithmetic of the published code where it differs from the paper."""

OUTCOME = replace(
    PAPER,
    preset="outcome",
    tool_term=ToolTerm.NONE,
    failed_turn=0.0,
    turn_credit=TurnCredit.NONE,
    turn_discount=0.0,
    turn_weight=0.0,
)
"""Accuracy and format only: the ablation "RL, accuracy + format"."""

PER_CALL_BONUS = replace(OUTCOME, preset="per_call_bonus", tool_term=ToolTerm.PER_CALL, call_bonus=0.1)
"""The ablation "+ a bonus per successful call". The paper does not state its size."""

GATED = replace(OUTCOME, preset="gated", tool_term=ToolTerm.GATED, call_bonus=0.1, failed_turn=-0.1, gate=1.0)
"""Gated reward accumulation (G-RA, arXiv 2508.10548)."""

GTPO = replace(
    OUTCOME,
    preset="gtpo",
    failed_turn=-0.1,
    invalid_turn=-0.1,
    turn_credit=TurnCredit.RETURNS,
    turn_discount=0.9,
    turn_weight=1.0,
)
"""Turn-level returns (Group Turn Policy Optimization, arXiv 2511.14846)."""

PRESETS: dict[str, RewardConfig] = {
    preset.preset: preset for preset in (ROBUST, PAPER, RELEASE, OUTCOME, PER_CALL_BONUS, GATED, GTPO)
}
