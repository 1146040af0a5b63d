"""Difficulty of a question for the model at this moment, from the accuracy of its group of rollouts."""

from __future__ import annotations

import math
from enum import StrEnum


class DifficultyForm(StrEnum):
    """Readings of d(mu): `SIGMOID` of the paper, `TANH` of its earlier version and of the published code."""

    SIGMOID = "sigmoid"
    TANH = "tanh"


_LARGEST_EXPONENT = 700.0
"""Largest exponent whose exp a double holds; d(mu) has its limit long before."""


def difficulty(mu: float, *, form: DifficultyForm, gamma: float, delta: float) -> float:
    """Returns d(mu), positive for hard groups, negative for easy ones.

    sigmoid: 1 / (1 + exp(-gamma (0.5 - mu))) - delta; tanh: (1 + tanh(gamma (0.5 - mu))) / 2 - delta.

    Args:
        mu: accuracy of the group, 0 to 1; or its mean score, beyond that.
        form: which of the two readings.
        gamma: steepness, above 0.
        delta: offset, 0 to 1; moves the accuracy at which d changes sign.
    """
    x = gamma * (0.5 - mu)
    if form is DifficultyForm.TANH:
        x = 2 * x  # (1 + tanh x) / 2 is the sigmoid of 2x
    return 1.0 / (1.0 + math.exp(min(-x, _LARGEST_EXPONENT))) - delta
