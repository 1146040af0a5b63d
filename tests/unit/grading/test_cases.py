"""Answers as people and models write them, right ones and wrong ones that look like them (`tests/data/cases`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from codedance_verl.grading.context import Context
from codedance_verl.grading.matchers import grade
from tests.unit.grading.pairs import read_pairs

FOLDER = Path(__file__).resolve().parents[2] / "data" / "cases"
CLASSES = ("grading_false_positive", "grading_false_negative", "grading_passing")
CASES = [
    case for name in CLASSES for case in json.loads((FOLDER / name / "index.json").read_text(encoding="utf-8"))["cases"]
]
NEEDED_RIGHT = 0.95


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_a_case_gets_its_expected_verdict(case: dict[str, Any]) -> None:
    given = case["input"]
    tolerance = given.get("relative_tolerance", 0.0)
    context = Context(question=given["question"], relative_tolerance=tolerance, math_timeout_s=60.0)
    verdict = grade(given["answer"], given["ground_truth"], given["style"], context)
    assert verdict.verdict.value == case["expected"], verdict


def test_the_cases_of_every_class_are_there() -> None:
    assert len(CASES) >= 150
    assert {case["expected"] for case in CASES} == {"correct", "wrong"}


def test_of_answers_written_without_a_look_at_the_rules_no_wrong_one_passes_and_the_right_ones_do() -> None:
    pairs = read_pairs("independent")
    passed = [
        grade(pair.answer, pair.ground_truth, pair.style, Context(question=pair.question, math_timeout_s=60.0))
        for pair in pairs
    ]
    right = [verdict.correct for pair, verdict in zip(pairs, passed, strict=True) if pair.correct]
    wrong = [pair for pair, verdict in zip(pairs, passed, strict=True) if not pair.correct and verdict.correct]
    assert len(right) == 400 and len(pairs) == 800
    assert wrong == []
    assert sum(right) / len(right) >= NEEDED_RIGHT
