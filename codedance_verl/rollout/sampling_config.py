"""Settings of drawing rollouts and of keeping some of them (`conf/sampling.yaml`)."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import ClassVar, Self

from pydantic import Field, model_validator

from codedance_verl.config.node import KeyFault, Node
from codedance_verl.reward.redraw import RedrawAt

FEWEST_FIRST = 2
"""Fewest rollouts of a group that are drawn from their start where others may redraw a call."""


class Keep(StrEnum):
    """Rollouts of a group that are trained on; see `codedance_verl.reward.resample` for `ON_CORRECT`."""

    ALL = "all"
    ON_CORRECT = "on_correct"


class SamplingConfig(Node):
    """Number of rollouts for each that is kept, the temperature of code, and calls that are drawn again."""

    KEY: ClassVar[str] = "sampling"

    oversample: float = Field(1.0, ge=1, le=8)
    """Rollouts of a training prompt for each that is kept; more than 1 needs `keep=on_correct`."""
    keep: Keep = Keep.ALL
    """Choice of the rollouts that are kept."""
    code_temperature: float | None = Field(None, ge=0, le=2)
    """Temperature of the tokens of a call; null for that of all other tokens."""

    redraw_calls: int = Field(0, ge=0, le=64)
    """Rollouts of a group that may draw a call of another one again; 0: none, else at least 2."""
    redraw_at: RedrawAt = RedrawAt.FIRST_CALL
    """Call of a rollout that may be drawn again."""

    @model_validator(mode="after")
    def _check_redraw(self) -> Self:
        if self.redraw_calls == 1:
            raise KeyFault("redraw_calls", "1", "must be 0 or at least 2, as branches are compared with one another")
        if self.redraw_calls and self.keep is not Keep.ALL:
            # of a choice of rollouts a source may be left out, whose branches are kept
            text = f"needs sampling.keep={Keep.ALL}, else set it to 0"
            raise KeyFault("redraw_calls", f"{self.redraw_calls}", text)
        return self

    @model_validator(mode="after")
    def _check_surplus_is_dropped(self) -> Self:
        if self.oversample > 1 and self.keep is Keep.ALL:
            text = f"needs sampling.keep={Keep.ON_CORRECT}, else set it to 1"
            raise KeyFault("oversample", f"{self.oversample:g}", text)
        return self

    def drawn(self, kept: int) -> int:
        """Rollouts to draw where `kept` are to remain."""
        return math.ceil(kept * self.oversample)

    def redrawn(self, size: int) -> int:
        """Rollouts of a group of `size` that wait for the others; 0 where fewer than 2 would be left to compare."""
        return self.redraw_calls if size - self.redraw_calls >= FEWEST_FIRST else 0
