"""Settings of drawing rollouts and of keeping some of them (`conf/sampling.yaml`)."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import ClassVar, Self

from pydantic import Field, model_validator

from codedance_verl.config.node import KeyFault, Node


class Keep(StrEnum):
    """Rollouts of a group that are trained on; see `codedance_verl.reward.resample` for `ON_CORRECT`."""

    ALL = "all"
    ON_CORRECT = "on_correct"


class SamplingConfig(Node):
    """Number of rollouts for each that is kept, and the temperature of code."""

    KEY: ClassVar[str] = "sampling"

    oversample: float = Field(1.0, ge=1, le=8)
    """Rollouts of a training prompt for each that is kept; more than 1 needs `keep=on_correct`."""
    keep: Keep = Keep.ALL
    """Choice of the rollouts that are kept."""
    code_temperature: float | None = Field(None, ge=0, le=2)
    """Temperature of the tokens of a call; null for that of all other tokens."""

    @model_validator(mode="after")
    def _check_surplus_is_dropped(self) -> Self:
        if self.oversample > 1 and self.keep is Keep.ALL:
            text = f"needs sampling.keep={Keep.ON_CORRECT}, else set it to 1"
            raise KeyFault("oversample", f"{self.oversample:g}", text)
        return self

    def drawn(self, kept: int) -> int:
        """Rollouts to draw where `kept` are to remain."""
        return math.ceil(kept * self.oversample)
