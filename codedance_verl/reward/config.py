"""Every constant of the reward, with its range (`conf/reward/*.yaml`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from codedance_verl.errors import UserError
from codedance_verl.reward.difficulty import DifficultyForm

CONFIG_NODE = "reward_preset"
"""Where the constants stand in the configuration; verl has a node `reward` of its own."""

_FORMS = tuple(form.value for form in DifficultyForm)
_RANGES: dict[str, tuple[float, float]] = {
    "gamma": (0.01, 100.0),
    "delta": (0.0, 1.0),
    "sequence_right": (0.0, 10.0),
    "sequence_wrong": (0.0, 10.0),
    "format_weight": (0.0, 10.0),
    "failed_turn": (-10.0, 0.0),
    "turn_discount": (0.0, 1.0),
    "turn_weight": (0.0, 10.0),
}
_MAX_ANSWER_CHARS_RANGE = (1, 100_000)


@dataclass(frozen=True)
class RewardConfig:
    """Constants of the published reward; the defaults are the preset `paper`.

    Attributes:
        preset: name of the preset these constants came from, for logs and reports.
        difficulty_form: reading of d(mu), `sigmoid` or `tanh`.
        gamma: steepness of d(mu), 0.01 to 100.
        delta: offset of d(mu), 0 to 1.
        sequence_right: factor c of R_seq where the answer is right, 0 to 10.
        sequence_wrong: factor c of R_seq where it is wrong, 0 to 10.
        format_weight: weight of the format term, 0 to 10. The paper gives none; 0.2 is the published code's.
        max_answer_chars: an answer of this many characters or more is malformed, 1 to 100000.
        failed_turn: immediate reward r_k of a turn whose code failed, -10 to 0.
        turn_discount: factor of the later turns in g_k = r_k + turn_discount g_{k+1}, 0 to 1.
        turn_weight: weight of the turn-level term in the advantage, 0 to 10.
    """

    preset: str = "paper"
    difficulty_form: DifficultyForm = DifficultyForm.SIGMOID
    gamma: float = 4.0
    delta: float = 0.2
    sequence_right: float = 1.5
    sequence_wrong: float = 0.5
    format_weight: float = 0.2
    max_answer_chars: int = 1_000
    failed_turn: float = -0.5
    turn_discount: float = 0.2
    turn_weight: float = 0.2

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], node: str = CONFIG_NODE) -> RewardConfig:
        """Build from the config node that stands at the dotted key `node`; absent keys take the preset's value.

        Raises:
            UserError: an unknown key or preset, or a value out of range; names the dotted key and what is allowed.
        """
        given = {str(key): value for key, value in values.items()}
        known = [field.name for field in fields(cls)]
        for key in given:
            if key not in known:
                raise UserError(f"{node}.{key}: unknown key; known are {', '.join(known)}")
        base = _preset(given.get("preset", cls.preset), node)
        merged = {**asdict(base), **given}
        for name, (low, high) in _RANGES.items():
            merged[name] = _number(merged[name], low, high, f"{node}.{name}")
        low_chars, high_chars = _MAX_ANSWER_CHARS_RANGE
        chars = _number(merged["max_answer_chars"], low_chars, high_chars, f"{node}.max_answer_chars")
        if chars != int(chars):
            raise UserError(f"{node}.max_answer_chars={chars}: must be a whole number")
        merged["max_answer_chars"] = int(chars)
        if merged["difficulty_form"] not in _FORMS:
            raise UserError(f"{node}.difficulty_form={merged['difficulty_form']}: must be one of {', '.join(_FORMS)}")
        merged["difficulty_form"] = DifficultyForm(merged["difficulty_form"])
        return cls(**merged)


PRESETS: dict[str, RewardConfig] = {"paper": RewardConfig()}
"""The presets by name; `conf/reward/<name>.yaml` holds the same constants."""


def _preset(name: object, node: str) -> RewardConfig:
    if name not in PRESETS:
        raise UserError(f"{node}.preset={name}: must be one of {', '.join(PRESETS)}")
    return PRESETS[str(name)]


def _number(value: object, low: float, high: float, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise UserError(f"{key}={value}: must be a number from {low:g} to {high:g}")
    return float(value)
