"""Forms of answers beside the plain one: each pair has its verdict, and what is hostile is graded in bounded time."""

from __future__ import annotations

from fractions import Fraction

import pytest

from codedance_verl.grading.context import Context
from codedance_verl.grading.matchers import MAX_ANSWER_CHARS, grade
from codedance_verl.grading.rules.working import evaluate
from codedance_verl.types import Verdict
from tests.unit.grading.pairs import Pair, read_pairs


@pytest.mark.parametrize("pair", read_pairs("further"), ids=lambda pair: f"{pair.ground_truth}|{pair.answer}")
def test_a_form_has_its_verdict(pair: Pair) -> None:
    found = grade(pair.answer, pair.ground_truth, pair.style, Context(question=pair.question, math_timeout_s=60.0))
    assert found.verdict is (Verdict.CORRECT if pair.correct else Verdict.WRONG), found


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("52 - 25", Fraction(27)),
        ("(10 + 20 + 30) / 3", Fraction(20)),
        ("-2 * (3 - 5)", Fraction(4)),
        ("1 / 3 + 1 / 6", Fraction(1, 2)),
        ("1,200 - 0.5", Fraction(2399, 2)),
        ("1 / 0", None),
        ("(1 + 2", None),
        ("1 + + 2", None),
        ("2 3", None),
        ("9**9", None),
        ("x + 1", None),
        ("", None),
        ("(" * 50 + "1" + ")" * 50, None),
        ("9" * 40, None),
        ("1" + "+1" * 90, None),
    ],
)
def test_working_is_evaluated_exactly_and_within_bounds(text: str, value: Fraction | None) -> None:
    assert evaluate(text) == value


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "piece", ["(", "1+", "1 + 1 = ", "is ", "the value is ", "or x = ", "no, ", "∠A", "AB, ", "a·", "é"]
)
@pytest.mark.parametrize("truth", ["27", "No", "±4", "(3, 5)", "AB", "ab", "São Paulo", "grey"])
def test_a_hostile_answer_is_graded_wrong_in_bounded_time(truth: str, piece: str) -> None:
    question = "What is the value of the side of the triangle, in terms of a and b, at point P?"
    answer = (piece * MAX_ANSWER_CHARS)[: MAX_ANSWER_CHARS - 1]
    assert not grade(answer, truth, context=Context(question=question)).correct
