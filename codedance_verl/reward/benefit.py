"""Benefit of calling: how much more often a question is answered right with a call than without one, -1 to 1."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

STATED_KEY = "Tool_Benefit_Score"
"""Key of `extra_info` under which the data set of AdaTooler-V (arXiv 2512.16918) has the benefit of a question."""


def group_benefit(rollouts: Iterable[tuple[bool, bool]]) -> float | None:
    """P(right | call) - P(right | no call) over rollouts of one question, each (called, right).

    None where all of them called, or none did: then nothing is there to compare with.
    """
    right: dict[bool, list[bool]] = {True: [], False: []}
    for called, correct in rollouts:
        right[called].append(correct)
    if not (right[True] and right[False]):
        return None
    return sum(right[True]) / len(right[True]) - sum(right[False]) / len(right[False])


def stated_benefit(extra_info: Mapping[str, Any]) -> float | None:
    """Returns the benefit that a record states; None where it has none, or no number from -1 to 1."""
    value = extra_info.get(STATED_KEY)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value) if -1 <= value <= 1 else None
