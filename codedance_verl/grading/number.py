"""Rung: the same number, however it is written ("3", "3.0", "three", "1,000"). The values must agree exactly."""

from __future__ import annotations

import re
from decimal import Decimal

from codedance_verl.grading.normalise import ascii_digits, strip_wrapping
from codedance_verl.types import Grade, Verdict

RUNG = "number"

NUMBER_WORDS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    *("ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
    "twenty",
)
_VALUE_OF_WORD = {word: Decimal(value) for value, word in enumerate(NUMBER_WORDS)}
_NUMBER = re.compile(
    r"(?P<value>[-+]?(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d{1,3})?)\s*(?P<percent>%?)"
)


def parse_number(text: str) -> tuple[Decimal, bool] | None:
    """Value and whether it is a percentage, when `text` is one number and nothing else; else None."""
    bare = strip_wrapping(ascii_digits(text))
    if (word := bare.casefold()) in _VALUE_OF_WORD:
        return _VALUE_OF_WORD[word], False
    found = _NUMBER.fullmatch(bare)
    if found is None:
        return None
    return Decimal(found.group("value").replace(",", "")), bool(found.group("percent"))


def compare(answer: str, ground_truth: str) -> Grade | None:
    """Applies where the ground truth is a number; an answer that is not exactly one number is then wrong."""
    truth = parse_number(ground_truth)
    if truth is None:
        return None
    given = parse_number(answer)
    if given is None:
        return Grade(Verdict.WRONG, RUNG, f"not a number against {truth[0]}")
    verdict = Verdict.CORRECT if given == truth else Verdict.WRONG
    return Grade(verdict, RUNG, f"{given[0]} against {truth[0]}")
