"""Renamed configuration keys."""

from __future__ import annotations

RENAMED: dict[str, str] = {
    "environment.answer_tokens": "environment.min_answer_tokens",
    "environment.instructions": "environment.add_system_prompt",
    "environment.max_seconds": "environment.trajectory_limit_s",
    "environment.stall_seconds": "environment.stall_limit_s",
    "reward_preset.bonus_half": "reward_preset.tool_term.bonus_half_saturation",
    "reward_preset.call_bonus": "reward_preset.tool_term.call_bonus",
    "reward_preset.cost_half": "reward_preset.tool_term.cost_half_saturation",
    "reward_preset.easy_cost": "reward_preset.tool_term.easy_cost",
    "reward_preset.gate": "reward_preset.tool_term.min_base_reward",
    "reward_preset.math_sequence_right": "reward_preset.tool_term.math_tool_coef_correct",
    "reward_preset.math_sequence_wrong": "reward_preset.tool_term.math_tool_coef_incorrect",
    "reward_preset.sequence_right": "reward_preset.tool_term.tool_coef_correct",
    "reward_preset.sequence_wrong": "reward_preset.tool_term.tool_coef_incorrect",
    "reward_preset.turn_limit": "reward_preset.max_turn_penalty",
    "sandbox.spares": "sandbox.standby_containers",
    "serving.max_picture_pixels": "serving.max_image_pixels",
}
"""Old dotted key -> new dotted key. An old one is refused with the new name, on the command line and in files."""


def renamed(key: str) -> str:
    """Present name of a key."""
    return RENAMED.get(key, key)


def renamed_line(key: str) -> str | None:
    """Line for an old key; None for any other."""
    return f"{key}: is now {RENAMED[key]}" if key in RENAMED else None
