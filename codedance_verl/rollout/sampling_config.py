"""How rollouts are drawn and which of them are kept (`conf/sampling.yaml`)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

from codedance_verl.config.checks import check_choice, check_known, check_number
from codedance_verl.errors import UserError

_OVERSAMPLE = (1.0, 8.0)
_TEMPERATURE = (0.0, 2.0)


class Keep(StrEnum):
    """Which rollouts of a group are trained on; see `codedance_verl.reward.resample` for `ON_CORRECT`."""

    ALL = "all"
    ON_CORRECT = "on_correct"


@dataclass(frozen=True)
class SamplingConfig:
    """Attributes:
    oversample: rollouts of a training prompt for each that is kept, 1 to 8; more than 1 needs `keep=on_correct`.
    keep: `all`, or `on_correct`.
    code_temperature: temperature of the tokens of a call, 0 to 2; None for that of all other tokens.
    """

    oversample: float = 1.0
    keep: Keep = Keep.ALL
    code_temperature: float | None = None

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> SamplingConfig:
        """Build from a config node.

        Raises:
            UserError: names the dotted key, the value seen and what is allowed.
        """
        check_known(values, [field.name for field in fields(cls)], "sampling")
        keep = check_choice(values.get("keep", cls.keep), list(Keep), "sampling.keep")
        oversample = check_number(values.get("oversample", cls.oversample), *_OVERSAMPLE, "sampling.oversample")
        if oversample > 1 and keep == Keep.ALL:
            raise UserError(
                f"sampling.oversample={oversample:g}: needs sampling.keep={Keep.ON_CORRECT}, else set it to 1"
            )
        temperature = values.get("code_temperature")
        if temperature is not None:
            temperature = check_number(temperature, *_TEMPERATURE, "sampling.code_temperature")
        return cls(oversample, Keep(keep), temperature)

    def drawn(self, kept: int) -> int:
        """Rollouts to draw where `kept` are to remain."""
        return math.ceil(kept * self.oversample)
