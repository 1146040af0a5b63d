"""Climbs the rungs from the most certain to the least; the first that has something to say gives the verdict."""

from __future__ import annotations

from collections.abc import Callable

from codedance_verl.grading import choice, exact_text, number
from codedance_verl.types import Grade, Verdict

Rung = Callable[[str, str], Grade | None]
"""Takes answer and ground truth; returns a verdict, or None where the rung does not apply."""

RUNGS: tuple[Rung, ...] = (exact_text.compare, choice.compare, number.compare)

MAX_ANSWER_CHARS = 1_000
"""An answer of this many characters or more is wrong, as in the published code: it states no single answer."""


def grade(answer: str | None, ground_truth: str) -> Grade:
    """Grade the text between the answer tags (None: there were none) against the record's ground truth.

    An answer that names several possibilities is wrong. Without a ground truth the verdict is `UNGRADED`.
    """
    if not ground_truth.strip():
        return Grade(Verdict.UNGRADED, "no_ground_truth")
    if answer is None or not answer.strip():
        return Grade(Verdict.WRONG, "no_answer")
    if len(answer) >= MAX_ANSWER_CHARS:
        return Grade(Verdict.WRONG, "too_long", f"{len(answer)} characters")
    for rung in RUNGS:
        if (verdict := rung(answer, ground_truth)) is not None:
            return verdict
    return Grade(Verdict.WRONG, "text", "no rung finds them equal")
