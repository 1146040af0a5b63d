"""Rules against labelled pairs: accuracy, and that nothing adversarial passes."""

from __future__ import annotations

import pytest

from codedance_verl.grading.context import Context
from codedance_verl.grading.matchers import grade, grade_by_rules
from codedance_verl.types import Grade, Verdict
from tests.unit.grading.pairs import ADVERSARIAL, KINDS, OPEN, Pair, read_pairs

NEEDED_PAIRS = 400
NEEDED_ACCURACY = 0.99
NEEDED_ATTACKS = 100


def graded(pair: Pair) -> Grade:
    return grade(pair.answer, pair.ground_truth, pair.style, Context(question=pair.question, math_timeout_s=60.0))


def test_the_rules_are_right_on_99_percent_of_the_pairs_that_need_no_judge() -> None:
    pairs = [pair for kind in KINDS for pair in read_pairs(kind)]
    assert len(pairs) >= NEEDED_PAIRS
    verdicts = [graded(pair).verdict for pair in pairs]
    expected = [Verdict.CORRECT if pair.correct else Verdict.WRONG for pair in pairs]
    missed = [pair for pair, verdict, right in zip(pairs, verdicts, expected, strict=True) if verdict is not right]
    assert 1 - len(missed) / len(pairs) >= NEEDED_ACCURACY, missed
    assert all(pair.correct for pair in missed), "a wrong answer passed"


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_right_and_wrong_answers_and_no_wrong_one_passes(kind: str) -> None:
    pairs = read_pairs(kind)
    assert {pair.correct for pair in pairs} == {True, False}
    assert [pair for pair in pairs if graded(pair).correct and not pair.correct] == []


def test_no_adversarial_answer_passes() -> None:
    attacks = read_pairs(ADVERSARIAL)
    assert len({(pair.ground_truth, pair.answer) for pair in attacks}) >= NEEDED_ATTACKS
    assert [pair for pair in attacks if graded(pair).verdict is not Verdict.WRONG] == []


def test_no_adversarial_answer_is_put_to_a_judge_where_comparing_settles_it() -> None:
    certain = [pair for pair in read_pairs(ADVERSARIAL) if pair.ground_truth in ("3", "B", "yes", "no", "12", "21")]
    assert len(certain) > 60
    assert [pair for pair in certain if grade_by_rules(pair.answer, pair.ground_truth, "model") is None] == []


@pytest.mark.parametrize("pair", read_pairs(OPEN), ids=lambda pair: pair.answer)
def test_an_open_answer_is_left_to_the_judge(pair: Pair) -> None:
    assert (
        grade_by_rules(pair.answer, pair.ground_truth, pair.style, Context(question=pair.question, math_timeout_s=60.0))
        is None
    )
