"""Whether a question that asks for several things asks for an order of them."""

from __future__ import annotations

import pytest

from codedance_verl.grading.config import GradingConfig
from codedance_verl.grading.matchers import RULE, grade

SWAPPED = ("gold, red, blue", "red, gold, blue")


@pytest.mark.parametrize(
    ("question", "correct"),
    [
        ("List the rings of the target from the innermost to the outermost by color.", False),
        ("List the colors of the bars from left to right.", False),
        ("List the three colors in chronological order.", False),
        ("Which three colors come consecutively?", False),
        ("List the colors along the route.", False),
        ("List the colors starting at the center.", False),
        ("List the colors anticlockwise.", False),
        ("Which three colors are used?", True),
        ("Which three colors are used? Order does not matter.", True),
        ("List the three colors, in any order.", True),
        ("List the three colors in no particular order.", True),
        ("List all colors; the order isn't important.", True),
    ],
)
def test_an_order_counts_where_it_is_asked_for(question: str, correct: bool) -> None:
    truth, answer = SWAPPED
    found = grade(answer, truth, RULE, GradingConfig().context(question, "any"))
    assert found is not None and found.correct is correct
    kept = grade(truth, truth, RULE, GradingConfig().context(question, "any"))
    assert kept is not None and kept.correct
