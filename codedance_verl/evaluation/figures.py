"""Figure with its interval, and the groups of questions that figures are given for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

_Figures = TypeVar("_Figures")


@dataclass(frozen=True)
class Figure:
    """A value with its 95 % interval.

    Attributes:
        value: a share in [0, 1], or a mean; null where there was nothing to measure.
        low, high: ends of the interval; null where too little was measured to give one.
        n: observations behind it, over all seeds: rollouts, executions, or paired questions.
        per_seed: the value of each seed, in the order of the report's `rl.seeds`; empty for a single run.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    per_seed: tuple[float | None, ...] = ()


@dataclass(frozen=True)
class Groups(Generic[_Figures]):
    """The same figures of all questions, of the easy and the hard ones, and of each kind."""

    overall: _Figures
    easy: _Figures
    hard: _Figures
    kinds: dict[str, _Figures]

    def by_title(self) -> dict[str, _Figures]:
        """Figures by what people read: "all", "all easy", "all hard", then each kind; a kind may be called `easy`."""
        return {"all": self.overall, "all easy": self.easy, "all hard": self.hard, **self.kinds}
