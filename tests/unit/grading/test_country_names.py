"""Names of countries: two of one country are the same, unless the name itself is asked for."""

from __future__ import annotations

import pytest

from codedance_verl.grading.config import GradingConfig
from codedance_verl.grading.matchers import RULE, grade


@pytest.mark.parametrize(
    ("question", "truth", "answer", "correct"),
    [
        ("Which country has the highest GDP?", "United States", "USA", True),
        ("Which country has the highest GDP?", "U.S.", "the United States", True),
        ("Which country has the second bar?", "UK", "United Kingdom", True),
        ("Which country has the second bar?", "UAE", "UK", False),
        ("Which country has the second bar?", "United Arab Emirates", "United States", False),
        ("What does UK stand for?", "United Kingdom", "UK", False),
        ("What is the abbreviation of the country?", "UK", "United Kingdom", False),
        ("What does the sign say?", "USA", "United States", False),
        ("What is written on the jersey?", "USA", "US", False),
        ("Which country is it?", "South Korea", "Republic of Korea", True),
        ("Which country is it?", "South Korea", "North Korea", False),
    ],
)
def test_names_of_one_country(question: str, truth: str, answer: str, correct: bool) -> None:
    found = grade(answer, truth, RULE, GradingConfig().context(question, "any"))
    assert found is not None and found.correct is correct
