"""Strata of questions by samples of a weak and a strong model, and the rule by which sampling stops.

Each of four arms (weak or strong model, plain or with tools) has a rank by its number of right samples, and the stratum
is the highest rank:

    weak, plain     easy from `easy` of its samples on
    weak, tools     medium from `easy` of its samples on
    strong          medium from `medium` of its samples on, hard from the first right one on
    none of these   unanswerable

No rank falls when a further sample is right, so that the strata which are still possible lie between two: that with
every unknown sample wrong, and that with every one right. Where both are the same the question is settled, with the
stratum that all samples would have given (curtailed sampling: no error is added). A sample whose reply failed, or which
has no verdict, is unknown like one that was not asked.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from codedance_verl.errors import UserError


class Stratum(StrEnum):
    """Stratum of a question; the last one where failures leave several possible."""

    EASY = "easy"
    MEDIUM = "medium"
    HARD = "hard"
    UNANSWERABLE = "unanswerable"
    UNGRADED = "ungraded"


class Arm(StrEnum):
    """Model and mode that samples are drawn from, in the order in which they are asked."""

    WEAK = "weak"
    WEAK_TOOLS = "weak_tools"
    STRONG = "strong"
    STRONG_TOOLS = "strong_tools"

    @property
    def model(self) -> str:
        """`weak` or `strong`."""
        return self.value.removesuffix("_tools")

    @property
    def tools(self) -> bool:
        """True where code is run."""
        return self.value.endswith("_tools")


_BY_RANK = (Stratum.UNANSWERABLE, Stratum.HARD, Stratum.MEDIUM, Stratum.EASY)


class Count(NamedTuple):
    """Samples of a question in one arm: right ones and wrong ones; all others are unknown."""

    right: int = 0
    wrong: int = 0


NOTHING = Count()
Counts = Mapping[Arm, Count]


@dataclass(frozen=True)
class Rule:
    """Numbers of samples and thresholds.

    Attributes:
        samples: of each arm, 0 for none; 1 to 1,000 for both models without tools.
        easy: share of right samples, above 0 to 1, from which on the weak model solves a question.
        medium: the same of the strong model.
    """

    samples: Mapping[Arm, int] = field(default_factory=lambda: dict.fromkeys(Arm, 8))
    easy: float = 0.75
    medium: float = 0.5

    def __post_init__(self) -> None:
        for name in ("easy", "medium"):
            if not 0 < getattr(self, name) <= 1:
                raise UserError(f"--{name}: must be over 0 and at most 1")
        for arm in Arm:
            if not (0 if arm.tools else 1) <= self.samples[arm] <= 1000:
                least = 0 if arm.tools else 1
                raise UserError(f"samples of {arm}: must be {least} to 1,000")

    def steps(self, arm: Arm) -> tuple[tuple[int, int], ...]:
        """Right samples of an arm and the rank that they give, by falling rank; empty for an arm that is not asked."""
        count = self.samples[arm]
        if not count:
            return ()
        # a share such as 0.7 of 10 is 7, whatever its binary digits
        share = self.easy if arm.model == "weak" else self.medium
        need = max(1, math.ceil(share * count - 1e-9))
        if arm is Arm.WEAK:
            return ((need, 3),)
        return ((need, 2),) if arm is Arm.WEAK_TOOLS else ((need, 2), (1, 1))

    def stratum(self, counts: Counts) -> Stratum:
        """Stratum of a question; `UNGRADED` where what is unknown may change it."""
        low = self._low(counts)
        high = max(self._rank(arm, self._most(arm, counts)) for arm in Arm)
        return _BY_RANK[low] if low == high else Stratum.UNGRADED

    def matters(self, arm: Arm, counts: Counts) -> bool:
        """True where unknown samples of an arm may change the stratum, whatever the other arms give."""
        return self._rank(arm, self._most(arm, counts)) > self._low(counts)

    def least(self, arm: Arm, counts: Counts) -> int:
        """Further samples of an arm before which it cannot stop mattering: all of them can be asked at once."""
        others = max(self._rank(other, counts.get(other, NOTHING).right) for other in Arm if other is not arm)
        return _least(self.steps(arm), self.samples[arm], counts.get(arm, NOTHING), others)

    def _low(self, counts: Counts) -> int:
        return max(self._rank(arm, counts.get(arm, NOTHING).right) for arm in Arm)

    def _most(self, arm: Arm, counts: Counts) -> int:
        return self.samples[arm] - counts.get(arm, NOTHING).wrong

    def _rank(self, arm: Arm, right: int) -> int:
        return next((rank for need, rank in self.steps(arm) if right >= need), 0)


def rate_bound(samples: int, confidence: float = 0.95) -> float:
    """Largest share of right samples, 0 to 1, that fits with none of `samples`: exact binomial, one-sided."""
    return 1 - (1 - confidence) ** (1 / samples) if samples else 1.0


@functools.lru_cache(maxsize=65_536)
def _least(steps: tuple[tuple[int, int], ...], total: int, count: Count, others: int) -> int:
    """Least number of further samples of which some outcome ends the arm; 0 where it has ended."""

    def ended(right: int, wrong: int) -> bool:
        low, high = (next((rank for need, rank in steps if n >= need), 0) for n in (right, total - wrong))
        return high <= max(low, others)

    for more in range(total - count.right - count.wrong + 1):
        if any(ended(count.right + good, count.wrong + more - good) for good in range(more + 1)):
            return more
    return total - count.right - count.wrong
