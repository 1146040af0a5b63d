"""Matcher: the same text, up to case, articles, outer punctuation, light LaTeX and the script of its digits.

Where a question asks for a kind of thing ("What fruit ...?"), one or several of it are the same, and so are the names
of a country unless the name itself is asked for.
"""

from __future__ import annotations

import re

from codedance_verl.grading.context import STRICT, Context
from codedance_verl.grading.question_kind import asks_code, asks_reading
from codedance_verl.grading.rules.normalise import normalise, singular
from codedance_verl.types import Grade, Verdict

RULE = "exact_text"

_ASKS_KIND = re.compile(
    r"\b(?:what|which)\s+(?:(?:kind|type|sort)s?\s+of\s+[^\W\d_]+|(?:fruit|vegetable|animal|food|plant|flower|insect|bird|"
    r"vehicle|instrument|sport|tool|toy|fish|tree)s?)\b",
    re.IGNORECASE,
)
_ASKS_NAME = re.compile(
    r"\b(?:abbreviat\w*|acronym|initials|stands?\s+for|(?:full|short|official)\s+(?:name|form)|spell\w*|call(?:s|ed)?)\b",
    re.IGNORECASE,
)
# Names of one country or union; where the name itself is asked for they differ.
_NAMES = (
    ("us", "usa", "united states", "united states of america"),
    ("uk", "united kingdom"),
    ("uae", "united arab emirates"),
    ("eu", "european union"),
    ("south korea", "republic of korea", "korea, south"),
    ("russia", "russian federation"),
    ("czechia", "czech republic"),
    ("turkey", "türkiye", "turkiye"),
)
_COUNTRY = {name: names[0] for names in _NAMES for name in names}


def compare(answer: str, ground_truth: str, context: Context = STRICT) -> Grade | None:
    """Applies where both normalise to the same text, which is correct."""
    left, right = normalise(answer), normalise(ground_truth)
    same = left == right or (_ASKS_KIND.search(context.question) is not None and _one_of(left) == _one_of(right))
    one_country = left in _COUNTRY and _COUNTRY[left] == _COUNTRY.get(right)
    same = same or (one_country and context.question != "" and not _asks_name(context.question))
    return Grade(Verdict.CORRECT, RULE, f"{left!r} = {right!r}") if same else None


def _asks_name(question: str) -> bool:
    return asks_code(question) or asks_reading(question) or _ASKS_NAME.search(question[:2_000]) is not None


def _one_of(text: str) -> str:
    """A text of words of four letters and more, its last one without a plural ending."""
    if not re.fullmatch(r"(?:[a-z]+ )*[a-z]{4,}", text) or text.endswith("glasses"):  # a pair of glasses is no glass
        return text
    if text.endswith("ies") and len(text) > 4:
        return f"{text[:-3]}y"
    return text[:-2] if text.endswith("oes") else singular(text)
