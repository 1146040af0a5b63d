"""Matcher: counts. Whole numbers, no tolerance; chosen by a record's style `count`."""

from __future__ import annotations

from fractions import Fraction

from codedance_verl.grading.context import STRICT, Context
from codedance_verl.grading.rules.number import Quantity, parse_quantity, same_names, says_nothing
from codedance_verl.types import Grade

RULE = "count"


def compare(answer: str, ground_truth: str, context: Context = STRICT) -> Grade | None:
    """Applies where the ground truth is a count; what the answer counts must be what the truth counts, if it says so.

    Otherwise, and what it adds to that, must stand in the question.
    """
    truth = parse_quantity(ground_truth)
    if truth is None or not _is_count(truth):
        return None
    given = parse_quantity(answer)
    if given is None and says_nothing(answer, truth, context.question):
        given = Quantity(Fraction(0))
    named = " ".join((context.question, *truth.words))
    same = given is not None and _is_count(given) and given.value == truth.value
    same = same and given is not None and same_names(given.words, truth.words, named)
    return Grade.of(same, RULE, f"{given.value if given else 'no single number'} against {truth.value}"[:200])


def _is_count(quantity: Quantity) -> bool:
    return quantity.unit is None and quantity.value >= 0 and quantity.value.denominator == 1
