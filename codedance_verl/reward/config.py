"""Every constant of the reward, with its range (`conf/reward_preset/`). The presets themselves are in `presets.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any

from codedance_verl.config.checks import check_choice, check_known, check_number, check_whole
from codedance_verl.errors import UserError
from codedance_verl.isolated.function import parse_path
from codedance_verl.reward.difficulty import DifficultyForm
from codedance_verl.types import FinishReason

CONFIG_NODE = "reward_preset"
"""Where the constants stand in the configuration; verl has a node `reward` of its own."""


class GroupMean(StrEnum):
    """What mu is the mean of, over the rollouts of a group that are not masked."""

    ACCURACY = "accuracy"
    SCORE = "score"  # accuracy and format with their weights, as in the published code


class FormatRule(StrEnum):
    """`STRICT`: every turn but the last is one call, the last one answer. `TAGS`: tags counted as the release does."""

    STRICT = "strict"
    TAGS = "tags"


class ToolTerm(StrEnum):
    """How tool use enters the sequence reward; formulas in `tool_terms.py`."""

    NONE = "none"
    SHARE = "share"
    ADAPTIVE = "adaptive"
    PER_CALL = "per_call"
    GATED = "gated"


class TurnCredit(StrEnum):
    """How turn rewards enter the advantage of their tokens; formulas in `advantage.py`."""

    NONE = "none"
    BATCH_Z = "batch_z"
    FIXED = "fixed"
    RETURNS = "returns"


_RANGES: dict[str, tuple[float, float]] = {
    "gamma": (0.01, 100.0),
    "delta": (0.0, 1.0),
    "accuracy_weight": (0.0, 10.0),
    "format_weight": (0.0, 10.0),
    "sequence_right": (0.0, 10.0),
    "sequence_wrong": (0.0, 10.0),
    "math_accuracy_weight": (0.0, 10.0),
    "math_format_weight": (0.0, 10.0),
    "math_sequence_right": (0.0, 10.0),
    "math_sequence_wrong": (0.0, 10.0),
    "easy_cost": (0.0, 10.0),
    "bonus_half": (0.0, 100.0),
    "cost_half": (0.0, 100.0),
    "call_bonus": (0.0, 10.0),
    "gate": (-10.0, 10.0),
    "failed_turn": (-10.0, 0.0),
    "invalid_turn": (-10.0, 0.0),
    "idle_turn": (-10.0, 0.0),
    "recovered_turn": (0.0, 10.0),
    "turn_discount": (0.0, 1.0),
    "turn_weight": (0.0, 10.0),
    "turn_limit": (0.0, 100.0),
    "min_group_std": (0.0, 10.0),
    "custom_weight": (0.0, 10.0),
    "custom_timeout_s": (0.1, 600.0),
}
_CHOICES: dict[str, type[StrEnum]] = {
    "difficulty_form": DifficultyForm,
    "group_mean": GroupMean,
    "format_rule": FormatRule,
    "tool_term": ToolTerm,
    "turn_credit": TurnCredit,
}
_MAX_ANSWER_CHARS_RANGE = (1, 100_000)
_NEVER_OPTIONAL = (FinishReason.ANSWER, FinishReason.INFRASTRUCTURE)


@dataclass(frozen=True)
class RewardConfig:
    """Constants of the reward; the defaults are the preset `robust`.

    Attributes:
        preset: name of the preset these constants came from, for logs and reports.
        difficulty_form: reading of d(mu), `sigmoid` or `tanh`.
        gamma: steepness of d(mu), 0.01 to 100.
        delta: offset of d(mu), 0 to 1.
        group_mean: what mu is the mean of, `accuracy` or `score`.
        mask_finishes: how a rollout ended that is kept out of loss and statistics: any of `length`, `time_limit`,
            `turn_limit`, `no_action`. `infrastructure` and ungraded answers always are.
        accuracy_weight: score of a right answer, 0 to 10.
        format_weight: weight of the format term (0 or -1), 0 to 10. The paper gives none; 0.2 is the published code's.
        format_rule: `strict` or `tags`.
        max_answer_chars: an answer of this many characters or more is malformed, 1 to 100000.
        math_sources: records whose `data_source` contains one of these texts, in any case, take the four `math_`
            constants, 0 to 10 each.
        tool_term: `none`, `share`, `adaptive`, `per_call` or `gated`.
        sequence_right: factor c of the tool term where the answer is right, 0 to 10.
        sequence_wrong: the same where it is wrong, 0 to 10 (`share`).
        easy_cost: factor of what calls cost on easy groups, 0 to 10 (`adaptive`).
        bonus_half: helpful calls at which half of the bonus is earned, 0 to 100; at 0 the first earns all (`adaptive`).
        cost_half: calls at which half of the cost is due, 0 to 100; at 0 the first costs all (`adaptive`).
        call_bonus: what a successful call earns, 0 to 10 (`per_call`, `gated`).
        gate: calls earn nothing while accuracy and format add up to less, -10 to 10 (`gated`).
        failed_turn: immediate reward r_k of a turn whose code failed, -10 to 0.
        invalid_turn: the same of a call that could not be read, -10 to 0.
        idle_turn: the same of code that does nothing or was run before, -10 to 0.
        recovered_turn: the same of a helpful call right after one that failed, 0 to 10; no more than a failure costs.
        turn_credit: `none`, `batch_z`, `fixed` or `returns`.
        turn_discount: factor of the later turns in g_k = r_k + turn_discount g_{k+1}, 0 to 1.
        turn_weight: weight of the turn-level term in the advantage, 0 to 10.
        turn_limit: where turn rewards are added up with the score (PPO), the most they take off it, 0 to 100.
        min_group_std: the least a group's scores are divided by, 0 to 10.
        custom_term: a term of the user's own, `package.module:function`, added to the score; None for none. What
            `robust` promises of the ranking holds without it.
        custom_weight: weight of that term, which is -10 to 10, in the score, 0 to 10.
        custom_timeout_s: run time of one call of the term, 0.1 to 600 seconds; a rollout without a value by then is
            masked.
    """

    preset: str = "robust"
    difficulty_form: DifficultyForm = DifficultyForm.TANH
    gamma: float = 4.0
    delta: float = 0.2
    group_mean: GroupMean = GroupMean.ACCURACY
    mask_finishes: tuple[FinishReason, ...] = (FinishReason.LENGTH, FinishReason.TIME_LIMIT)
    accuracy_weight: float = 1.0
    format_weight: float = 0.2
    format_rule: FormatRule = FormatRule.STRICT
    max_answer_chars: int = 1_000
    math_sources: tuple[str, ...] = ()
    math_accuracy_weight: float = 1.0
    math_format_weight: float = 0.2
    math_sequence_right: float = 0.5
    math_sequence_wrong: float = 0.0
    tool_term: ToolTerm = ToolTerm.ADAPTIVE
    sequence_right: float = 0.5
    sequence_wrong: float = 0.0
    easy_cost: float = 2.0
    bonus_half: float = 0.25
    cost_half: float = 4.0
    call_bonus: float = 0.0
    gate: float = 0.0
    failed_turn: float = -0.5
    invalid_turn: float = -0.5
    idle_turn: float = -0.1
    recovered_turn: float = 0.2
    turn_credit: TurnCredit = TurnCredit.FIXED
    turn_discount: float = 0.0
    turn_weight: float = 1.0
    turn_limit: float = 0.3
    min_group_std: float = 0.25
    custom_term: str | None = None
    custom_weight: float = 1.0
    custom_timeout_s: float = 10.0

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], node: str = CONFIG_NODE) -> RewardConfig:
        """Build from the config node that stands at the dotted key `node`; absent keys take the preset's value.

        Raises:
            UserError: an unknown key or preset, a value out of range, or values that contradict each other; names the
                dotted key and what is allowed.
        """
        from codedance_verl.reward.presets import PRESETS

        given = {str(key): value for key, value in values.items()}
        check_known(given, [field.name for field in fields(cls)], node)
        name = check_choice(given.get("preset", cls.preset), list(PRESETS), f"{node}.preset")
        config = cls(**_checked({**asdict(PRESETS[name]), **given}, node))
        _check_ranking(config, node)
        return config


@dataclass(frozen=True)
class Weights:
    """The constants that depend on where a record comes from."""

    accuracy: float
    format: float
    sequence_right: float
    sequence_wrong: float


def weights_of(config: RewardConfig, data_source: str) -> Weights:
    """The weights for a record of this source: those of mathematics, or the general ones."""
    source = data_source.casefold()
    if any(name.casefold() in source for name in config.math_sources):
        return Weights(
            config.math_accuracy_weight,
            config.math_format_weight,
            config.math_sequence_right,
            config.math_sequence_wrong,
        )
    return Weights(config.accuracy_weight, config.format_weight, config.sequence_right, config.sequence_wrong)


def _checked(values: dict[str, Any], node: str) -> dict[str, Any]:
    for name, (low, high) in _RANGES.items():
        values[name] = check_number(values[name], low, high, f"{node}.{name}")
    for name, kind in _CHOICES.items():
        values[name] = kind(check_choice(values[name], list(kind), f"{node}.{name}"))
    values["max_answer_chars"] = check_whole(
        values["max_answer_chars"], *_MAX_ANSWER_CHARS_RANGE, f"{node}.max_answer_chars"
    )
    if values["custom_term"] is not None:
        values["custom_term"] = parse_path(values["custom_term"], f"{node}.custom_term")
    values["math_sources"] = _texts(values["math_sources"], f"{node}.math_sources")
    finishes = _texts(values["mask_finishes"], f"{node}.mask_finishes")
    allowed = [finish for finish in FinishReason if finish not in _NEVER_OPTIONAL]
    for finish in finishes:
        if finish not in allowed:
            raise UserError(f"{node}.mask_finishes={finish}: must be among {', '.join(allowed)}")
    values["mask_finishes"] = tuple(FinishReason(finish) for finish in finishes)
    return values


def _check_ranking(config: RewardConfig, node: str) -> None:
    """Failing on purpose must not pay; with `adaptive` a right answer must outrank every wrong one."""
    mildest = -max(config.failed_turn, config.invalid_turn)
    if config.recovered_turn > mildest:
        raise UserError(
            f"{node}.recovered_turn={config.recovered_turn}: must be at most {mildest:g}, what a failure costs "
            "(failed_turn, invalid_turn), or failing on purpose would pay"
        )
    if config.tool_term is not ToolTerm.ADAPTIVE:
        return
    limit = 0.0 if config.turn_credit is TurnCredit.NONE else config.turn_limit  # what PPO adds up
    taken = config.easy_cost * config.delta + limit
    for prefix in ("", "math_") if config.math_sources else ("",):
        right, form = getattr(config, f"{prefix}accuracy_weight"), getattr(config, f"{prefix}format_weight")
        if right <= form + taken:
            raise UserError(
                f"{node}.{prefix}accuracy_weight={right}: must be more than {form + taken:g}, that is "
                f"{prefix}format_weight + easy_cost x delta + turn_limit, or a wrong answer could outrank a right one"
            )


def _texts(value: Any, key: str) -> tuple[str, ...]:
    items = () if value is None or isinstance(value, (str, bytes, int, float)) else tuple(value)
    if (value is not None and not items and value not in ([], ())) or not all(
        isinstance(item, str) and item for item in items
    ):
        raise UserError(f"{key}={value}: must be a list of texts, such as [a, b] or []")
    return items
