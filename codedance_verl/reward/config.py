"""Constants of the reward: type, range, default and meaning of each (`conf/reward_preset/`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Self, get_args

from omegaconf import OmegaConf
from pydantic import Field, field_validator, model_validator

from codedance_verl.config.node import Allowed, KeyFault, Node, null_as
from codedance_verl.isolated.function import FunctionPath
from codedance_verl.reward.difficulty import DifficultyForm
from codedance_verl.reward.tool_terms import AdaptiveTerm, Factor, ToolTerm
from codedance_verl.types import FinishReason


class GroupMean(StrEnum):
    """Quantity whose mean mu is, over the rollouts of a group that are not masked."""

    ACCURACY = "accuracy"
    SCORE = "score"  # accuracy and format with their weights, as in the published code


class FormatRule(StrEnum):
    """`STRICT`: every turn but the last is one call, the last one answer. `TAGS`: tags counted as the release does."""

    STRICT = "strict"
    TAGS = "tags"


class TurnCredit(StrEnum):
    """Way of turn rewards into the advantage of their tokens; formulas in `advantage.py`."""

    NONE = "none"
    BATCH_Z = "batch_z"
    FIXED = "fixed"
    ROUTED = "routed"
    RETURNS = "returns"


OPTIONAL_MASKS = tuple(
    finish for finish in FinishReason if finish not in (FinishReason.ANSWER, FinishReason.INFRASTRUCTURE)
)
"""Members of `mask_finishes`: an answer is always graded, a fault of the infrastructure always masked."""

Penalty = Annotated[float, Field(ge=-10, le=0)]


class RewardConfig(Node):
    """Constants of the reward; the defaults are those of the preset `robust`."""

    KEY: ClassVar[str] = "reward_preset"  # verl has a node `reward` of its own

    preset: str = "robust"
    """Preset that these constants came from, for logs and reports."""

    difficulty_form: DifficultyForm = DifficultyForm.TANH
    """Reading of d(mu)."""
    gamma: float = Field(4.0, ge=0.01, le=100)
    """Steepness of d(mu)."""
    delta: float = Field(0.2, ge=0, le=1)
    """Offset of d(mu): with a larger one fewer groups count as hard."""
    group_mean: GroupMean = GroupMean.ACCURACY
    """Quantity whose mean over the group mu is."""
    mask_finishes: Annotated[
        tuple[Annotated[FinishReason, Field(strict=False)], ...],
        Field(strict=False),
        null_as(()),
        Allowed(f"a list of texts, such as [a, b] or [], among {', '.join(OPTIONAL_MASKS)}"),
    ] = (FinishReason.LENGTH, FinishReason.TIME_LIMIT)
    """Ends of a rollout that keep it out of loss and statistics, as `infrastructure` and ungraded answers always do."""

    fatal_failures: int = Field(0, ge=0, le=100)
    """Calls in a row that go wrong from which on, the first of them included, a rollout is not trained on; 0: never."""

    accuracy_weight: Factor = 1.0
    """Score of a right answer."""
    format_weight: Factor = 0.2
    """Weight of the format term, 0 or -1. The paper gives none; 0.2 is the published code's."""
    format_rule: FormatRule = FormatRule.STRICT
    """Rule of a well-formed rollout."""
    max_answer_chars: int = Field(1_000, ge=1, le=100_000)
    """Length from which an answer is malformed, in characters."""

    math_sources: Annotated[
        tuple[Annotated[str, Field(min_length=1)], ...],
        Field(strict=False),
        null_as(()),
        Allowed("a list of texts, such as [a, b] or []"),
    ] = ()
    """Texts of which a record's `data_source` contains one, in any case, where it takes the constants `math_`."""
    math_accuracy_weight: Factor = 1.0
    """`accuracy_weight` of these records."""
    math_format_weight: Factor = 0.2
    """`format_weight` of these records."""

    tool_term: Annotated[ToolTerm, Field(discriminator="name")] = AdaptiveTerm()
    """Term of tool use and its own constants (`tool_terms.py`)."""

    failed_turn: Penalty = -0.5
    """Immediate reward r_k of a turn whose code failed."""
    invalid_turn: Penalty = -0.5
    """Immediate reward of a call that could not be read."""
    idle_turn: Penalty = -0.1
    """Immediate reward of code that does nothing or was run before."""
    recovered_turn: Factor = 0.2
    """Immediate reward of a helpful call right after one that failed, no more than a failure costs."""
    call_value: Factor = 0.0
    """Factor of the group's benefit of calling, which the turns with a call share as immediate reward."""
    turn_credit: TurnCredit = TurnCredit.FIXED
    """Way of turn rewards into the advantage."""
    turn_discount: float = Field(0.0, ge=0, le=1)
    """Factor of the later turns in g_k = r_k + turn_discount g_{k+1}."""
    turn_weight: Factor = 1.0
    """Weight of the turn-level term in the advantage; 0 leaves plain group-relative advantages."""
    max_turn_penalty: float = Field(0.3, ge=0, le=100)
    """Most that turn rewards take off the score where both are added up (PPO)."""
    min_group_std: Factor = 0.1
    """Least that a group's scores are divided by: where all are right, about half of what a first call costs."""

    custom_term: FunctionPath | None = None
    """Term of the user's own, added to the score. The ranking that `robust` promises holds without it."""
    custom_weight: Factor = 1.0
    """Weight of that term, which is -10 to 10, in the score."""
    custom_timeout_s: float = Field(10.0, ge=0.1, le=600)
    """Run time of one call of that term in seconds; a rollout without a value by then is masked."""

    @classmethod
    def from_mapping(cls, values: Any, key: str | None = None) -> Self:
        """Builds the constants from the node at the dotted key `key`; absent keys take the preset's value.

        Raises:
            SettingsError: has a line for every fault, with dotted key, value and what is allowed.
        """
        from codedance_verl.reward.presets import preset_values

        if OmegaConf.is_config(values):
            values = OmegaConf.to_container(values, resolve=True)
        if isinstance(values, Mapping):
            values = _over_preset(preset_values(values.get("preset", "robust")), values)
        return super().from_mapping(values, key)

    @field_validator("preset", mode="before")
    @classmethod
    def _is_preset(cls, value: Any) -> Any:
        from codedance_verl.reward.presets import preset_names

        if value not in preset_names():
            raise ValueError(f"must be one of {', '.join(preset_names())}")
        return value

    @field_validator("mask_finishes")
    @classmethod
    def _is_optional(cls, value: tuple[FinishReason, ...]) -> tuple[FinishReason, ...]:
        for finish in value:
            if finish not in OPTIONAL_MASKS:
                raise KeyFault("", finish, f"must be among {', '.join(OPTIONAL_MASKS)}")
        return value

    @field_validator("tool_term", mode="before")
    @classmethod
    def _has_a_term(cls, value: Any) -> Any:
        """Refuses an unknown term and constants of another one, with the way to choose a term in the message."""
        terms: dict[str, type[Node]] = {term().name: term for term in get_args(ToolTerm)}
        if not isinstance(value, Mapping):
            if value in list(terms):
                raise ValueError(f"is chosen together with its constants, as {cls.KEY}/tool_term={value}")
            raise ValueError(f"must be one of {', '.join(terms)}, chosen as {cls.KEY}/tool_term=NAME")
        name = value.get("name")
        if name not in list(terms):  # a list: what is given may have no hash
            raise KeyFault("name", name, f"must be one of {', '.join(terms)}")
        others = {field for term in terms.values() for field in term.model_fields}
        if idle := [key for key in value if key in others and key not in terms[name].model_fields]:
            takers = [term for term, node in terms.items() if set(idle) <= set(node.model_fields)]
            cure = f"{' or '.join(takers)} does, chosen as {cls.KEY}/tool_term=NAME" if takers else "leave them out"
            raise KeyFault("name", name, f"takes no {', '.join(idle)}; {cure}")
        return value

    @model_validator(mode="after")
    def _failing_must_not_pay(self) -> Self:
        mildest = -max(self.failed_turn, self.invalid_turn)
        if self.recovered_turn > mildest:
            raise KeyFault(
                "recovered_turn",
                self.recovered_turn,
                f"must be at most {mildest:g}, what a failure costs (failed_turn, invalid_turn), or failing on purpose "
                "would pay",
            )
        return self

    @model_validator(mode="after")
    def _fatal_turns_have_no_returns(self) -> Self:
        if self.fatal_failures and self.turn_credit is TurnCredit.RETURNS:
            raise KeyFault(
                "fatal_failures", self.fatal_failures, "must be 0 with turn_credit=returns, which ends in the answer"
            )
        return self

    @model_validator(mode="after")
    def _adaptive_keeps_its_promises(self) -> Self:
        """Refuses beside `adaptive` what would lift a wrong answer above a right one, or make failing pay."""
        if isinstance(self.tool_term, AdaptiveTerm):
            for key in ("call_value", "fatal_failures"):
                if value := getattr(self, key):
                    raise KeyFault(key, value, "must be 0 with tool_term adaptive, whose guarantees it would break")
        return self

    @model_validator(mode="after")
    def _right_must_outrank_wrong(self) -> Self:
        """Holds a right answer above every wrong one of its group, which `adaptive` promises."""
        if not isinstance(self.tool_term, AdaptiveTerm):
            return self
        # At worst a wrong answer is well-formed and makes no call, score 0, and a right one is malformed on a group
        # that is nearly all right, d = -delta, with endless calls. PPO takes turn rewards off its score besides.
        limit = 0.0 if self.turn_credit is TurnCredit.NONE else self.max_turn_penalty
        taken = self.tool_term.easy_cost * self.delta + limit
        for prefix in ("", "math_") if self.math_sources else ("",):
            right, form = getattr(self, f"{prefix}accuracy_weight"), getattr(self, f"{prefix}format_weight")
            if right <= form + taken:
                raise KeyFault(
                    f"{prefix}accuracy_weight",
                    right,
                    f"must be more than {form + taken:g}, that is {prefix}format_weight + easy_cost x delta + "
                    "max_turn_penalty, or a wrong answer could outrank a right one",
                )
        return self


@dataclass(frozen=True)
class Weights:
    """Constants that depend on where a record comes from; a factor that the tool term does not have is 0."""

    accuracy: float
    format: float
    tool_coef_correct: float
    tool_coef_incorrect: float


def weights_of(config: RewardConfig, data_source: str) -> Weights:
    """Returns the weights for a record of this source: those of mathematics, or the general ones."""
    source, term = data_source.casefold(), config.tool_term
    prefix = "math_" if any(name.casefold() in source for name in config.math_sources) else ""
    return Weights(
        getattr(config, f"{prefix}accuracy_weight"),
        getattr(config, f"{prefix}format_weight"),
        getattr(term, f"{prefix}tool_coef_correct", 0.0),
        getattr(term, f"{prefix}tool_coef_incorrect", 0.0),
    )


def _over_preset(preset: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Values over those of a preset; another tool term than the preset's begins with its own defaults."""
    merged = {**preset, **given}
    term, below = merged.get("tool_term"), preset.get("tool_term")
    if isinstance(term, Mapping) and below is not None and term.get("name", below["name"]) == below["name"]:
        merged["tool_term"] = {**below, **term}
    return merged
