"""Truths of several texts, any of which is right."""

from __future__ import annotations

import json

import pytest

from codedance_verl.grading import grade
from codedance_verl.grading.context import Context
from codedance_verl.grading.matchers import grade_by_rules, is_open
from codedance_verl.grading.rules.alternatives import (
    MAX_ALTERNATIVES,
    alternatives_of,
    encode_alternatives,
    show_alternatives,
)
from codedance_verl.types import Verdict


@pytest.mark.parametrize(
    "texts",
    [
        ("red", "crimson"),
        ("3", "three", "III"),
        ('a "b"', "c\\d"),
        ("é", "猫"),
        ("a, b", "c]"),
        ("<any_of>x</any_of>",),
    ],
)
def test_alternatives_come_back_as_they_were(texts: tuple[str, ...]) -> None:
    encoded = encode_alternatives(texts)
    assert alternatives_of(encoded) == texts
    assert alternatives_of(json.loads(json.dumps(encoded))) == texts
    assert encoded.isprintable()


@pytest.mark.parametrize(
    "text", ["red", "['red', 'blue']", '["a"]', "<any_of>", "<any_of>[]</any_of>", "<any_of>3", ""]
)
def test_an_ordinary_truth_is_its_own_alternative(text: str) -> None:
    assert alternatives_of(text) == (text,)


def test_one_text_stays_as_it_is_and_repetitions_are_left_out() -> None:
    assert encode_alternatives(["red", "red "]) == "red"
    assert alternatives_of(encode_alternatives(["a", "b", "a"])) == ("a", "b")
    assert show_alternatives(encode_alternatives(["a", "b"])) == "a, or: b"


@pytest.mark.parametrize("texts", [[], [""], ["a", " "], [str(number) for number in range(MAX_ALTERNATIVES + 1)]])
def test_what_is_no_list_of_right_answers_is_refused(texts: list[str]) -> None:
    with pytest.raises(ValueError, match="right answers"):
        encode_alternatives(texts)


def test_any_alternative_is_right_by_its_own_rung() -> None:
    truth = encode_alternatives(["red", "3 cm", "\\frac{1}{2}"])
    assert all(grade(answer, truth).correct for answer in ("Red.", "30 mm", "0.5", "The answer is 3 cm"))
    assert not any(grade(answer, truth).correct for answer in ("blue", "3", "1", "red or 3 cm", "red, 3 cm", truth))
    assert grade("3.0", encode_alternatives(["3", "4"]), "number").correct
    assert not grade("3.5", encode_alternatives(["3", "4"]), "number").correct


def test_a_truth_is_open_where_one_of_its_alternatives_is() -> None:
    truth = encode_alternatives(["3", "a few of them"])
    assert is_open(truth, "model") and not is_open(encode_alternatives(["3", "4"]), "model")
    assert grade_by_rules("some", truth, "model") is None
    assert grade_by_rules("5", encode_alternatives(["3", "4"]), "model", Context()) == grade("5", "3", "model")
    assert grade("5", encode_alternatives(["x", "y"]), "count").verdict is Verdict.UNGRADED
