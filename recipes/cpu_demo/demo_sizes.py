"""Kinds and sizes of the demo's files, apart from what makes them: its libraries take seconds to import."""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT_SIZE = 112
"""Side of an image in pixels: 8 x 8 patches of 14, merged 2 x 2 to 16 image tokens. The model sees no larger ones."""

DEMO_KINDS = ("count_photo", "count_digits", "extremes", "look", "look_large", "easy")
"""Four kinds that need code, two of them on real input; two that do not, one of them in the words of a hard kind."""


@dataclass(frozen=True)
class DemoSizes:
    """Numbers of demonstrations and questions. Test questions count once, whatever their variants.

    `blank` of the test questions stand there with a blank image too, `controls` of them greedily without calls and with
    a forced one (`data/conditions.py`). With any, all questions of `look` stand there with greyed observations.
    """

    sft: int = 4_500
    rl_train: int = 1_920
    rl_val: int = 60
    test: int = 384
    blank: int = 100
    controls: int = 192
