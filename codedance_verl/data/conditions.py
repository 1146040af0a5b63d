"""Conditions of a rollout that a record states in its `extra_info`: variant, intervention, temperature.

An evaluation rolls the same question out under several conditions and compares them. What each intervention changes is
in `docs/data.md#variants-and-controls`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

SAMPLED, GREEDY, BLANK = "sampled", "greedy", "blank"

GREY, NO_TOOLS, FORCED_TOOLS = "grey", "no_tools", "forced_tools"
"""Variants of a question under a control, each answered at temperature 0."""

PLAIN_VARIANTS = (SAMPLED, GREEDY, BLANK)
"""Variants whose figures are those of the environment as it is."""

MOST_TEMPERATURE = 2.0


class Control(StrEnum):
    """Intervention of the environment on a rollout."""

    GREY_OBSERVATIONS = "grey_observations"
    NO_TOOLS = "no_tools"
    FORCED_TOOLS = "forced_tools"


CONTROL_OF_VARIANT = {
    GREY: Control.GREY_OBSERVATIONS,
    NO_TOOLS: Control.NO_TOOLS,
    FORCED_TOOLS: Control.FORCED_TOOLS,
}
"""Intervention that the name of a variant stands for: reports count by these names."""


@dataclass(frozen=True)
class Condition:
    """Condition of a rollout.

    Attributes:
        variant: name under which the rollouts of an evaluation are counted; empty where the record states none.
        control: intervention; None for the environment as it is.
        temperature: 0 to 2; None for that of the run.
    """

    variant: str = ""
    control: Control | None = None
    temperature: float | None = None

    @classmethod
    def of(cls, extra_info: Mapping[str, Any] | None) -> Condition:
        """Returns the condition that a record states.

        Where no temperature is stated, that of `greedy` and of the variants in `CONTROL_OF_VARIANT` is 0.

        Raises:
            ValueError: an unknown control, one that its variant does not stand for, or no temperature.
        """
        extra = extra_info or {}
        variant, control = str(extra.get("variant") or ""), _control(extra.get("control"))
        if control is not None and (not variant or variant in PLAIN_VARIANTS):
            raise ValueError(
                f"extra_info.control is {control} and extra_info.variant {variant or None!r}; rollouts are counted by "
                f"their variant, so give it a name of its own, such as {control}"
            )
        if (expected := CONTROL_OF_VARIANT.get(variant)) not in (None, control):
            raise ValueError(
                f"extra_info.variant is {variant!r} and extra_info.control {control and str(control)!r}; the control "
                f"of that variant is {expected}"
            )
        stated = _temperature(extra.get("temperature"))
        greedy = variant == GREEDY or variant in CONTROL_OF_VARIANT
        return cls(variant, control, 0.0 if stated is None and greedy else stated)


def only_for_evaluation(extra_info: Mapping[str, Any] | None) -> str:
    """Returns what of a record no training may have, in words; empty where there is nothing.

    Raises what `Condition.of` does.
    """
    condition = Condition.of(extra_info)
    if condition.control is not None:
        return f"extra_info.control is {condition.control}"
    if condition.variant == GREEDY:
        return f"extra_info.variant is {GREEDY}"
    return "" if condition.temperature is None else f"extra_info.temperature is {condition.temperature:g}"


def _control(value: Any) -> Control | None:
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return None
    try:
        return Control(value)
    except ValueError:
        raise ValueError(f"extra_info.control is {str(value)[:100]!r}; must be one of {', '.join(Control)}") from None


def _temperature(value: Any) -> float | None:
    # pandas writes NaN where a column of numbers has no value
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return None
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value <= MOST_TEMPERATURE:
        raise ValueError(
            f"extra_info.temperature is {str(value)[:100]!r}; must be a number from 0 to {MOST_TEMPERATURE:g}"
        )
    return float(value)
