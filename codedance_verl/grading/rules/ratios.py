"""Matcher: ratios ("2:5", "2 to 5"), with their terms in order and not reduced."""

from __future__ import annotations

import re

from codedance_verl.grading.context import STRICT, Context
from codedance_verl.grading.rules.latex import to_plain
from codedance_verl.grading.rules.normalise import ascii_digits, strip_wrapping
from codedance_verl.grading.rules.numerals import parse_words
from codedance_verl.types import Grade

RULE = "ratio"

# A longer text is no ratio.
MAX_CHARS = 60

_ASKED = re.compile(r"\b(?:ratio|odds|scale|proportion)\b|比", re.IGNORECASE)
_BETWEEN = re.compile(r"\s*(?::|/|\N{RATIO}|比|\bto\b|\bby\b|[xX\N{MULTIPLICATION SIGN}])\s*", re.IGNORECASE)
_TERM = re.compile(r"\d{1,9}(?:\.\d{1,9})?")


def parse_ratio(text: str) -> tuple[str, ...] | None:
    """Terms of a ratio of two or three numbers, in digits or words; None for anything else."""
    if len(text) > MAX_CHARS:
        return None
    bare = re.sub(r"\\colon|\\mathbin\{:\}", ":", ascii_digits(text))
    terms = _BETWEEN.split(strip_wrapping(to_plain(bare)))
    # not reduced: 4:10 may be asked for as it stands
    values = [term if _TERM.fullmatch(term) else str(parse_words(term) or "") for term in terms]
    return tuple(values) if 2 <= len(values) <= 3 and all(values) else None


def compare(answer: str, ground_truth: str, context: Context = STRICT) -> Grade | None:
    """Applies where the question asks for a ratio and the ground truth is one with a colon or in words.

    Says nothing of an answer that is none.
    """
    if not _ASKED.search(context.question) or not re.search(r":|\N{RATIO}|\bto\b|比", ground_truth):
        return None
    truth, given = parse_ratio(ground_truth), parse_ratio(answer)
    if truth is None:
        return None
    return Grade.of(given == truth, RULE, f"{given} against {truth}")
