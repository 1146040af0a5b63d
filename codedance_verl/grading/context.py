"""Context of a comparison: the question, and how far values may differ."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Context:
    """Question and tolerances of one comparison; the defaults are the strictest.

    Attributes:
        question: the question's text. What an answer adds to a number or a yes must stand in it: a unit, the thing that
            was counted, the words that repeat the question. Empty: nothing may be added.
        relative_tolerance: how far a number may be off, as a share of the true one, 0 to 1; a whole number without a
            unit has none.
        box_iou: intersection over union from which on two boxes are the same, above 0 up to 1.
        math_timeout_s: run time of one comparison of formulas, seconds; without a result by then there is no verdict.
    """

    question: str = ""
    relative_tolerance: float = 0.0
    box_iou: float = 0.5
    math_timeout_s: float = 5.0


STRICT = Context()
