"""Rung: the same text, up to case, articles, outer punctuation, light LaTeX and the script of its digits."""

from __future__ import annotations

from codedance_verl.grading.context import STRICT, Context
from codedance_verl.grading.normalise import normalise
from codedance_verl.types import Grade, Verdict

RUNG = "exact_text"


def compare(answer: str, ground_truth: str, context: Context = STRICT) -> Grade | None:
    """Correct when both normalise to the same text; None, nothing said, otherwise."""
    left, right = normalise(answer), normalise(ground_truth)
    return Grade(Verdict.CORRECT, RUNG, f"{left!r} = {right!r}") if left == right else None
