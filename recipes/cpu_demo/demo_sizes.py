"""Kinds and sizes of the demo's files, apart from what makes them: its libraries take seconds to import."""

from __future__ import annotations

from dataclasses import dataclass

DEMO_KINDS = ("count_photo", "count_digits", "extremes", "easy")
"""Three kinds that need code, two of them on real input, and one that does not: a quarter each."""


@dataclass(frozen=True)
class DemoSizes:
    """Numbers of demonstrations and questions. Test questions count once, whatever their variants.

    `blank` of the test questions stand there with a blank image too, `controls` of them greedily under every
    intervention too (`data/conditions.py`).
    """

    sft: int = 4_000
    rl_train: int = 1_600
    rl_val: int = 64
    test: int = 320
    blank: int = 100
    controls: int = 192
