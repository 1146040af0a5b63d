"""Matcher: a place in an order ("third", "3rd", "the 3rd floor"), which is neither a fraction nor a count."""

from __future__ import annotations

import re

from codedance_verl.grading import question_kind as asks
from codedance_verl.grading.context import STRICT, Context
from codedance_verl.grading.rules.normalise import bare_text, words_of
from codedance_verl.grading.rules.number import parse_quantity
from codedance_verl.grading.rules.numerals import VALUE_OF_WORD
from codedance_verl.types import Grade, Verdict

RULE = "ordinal"

# A longer text is no ordinal number.
MAX_CHARS = 60

_IRREGULAR = {"first": 1, "second": 2, "third": 3, "fifth": 5, "eighth": 8, "ninth": 9, "twelfth": 12}
_REGULAR = {
    (f"{word[:-1]}ieth" if word.endswith("y") else f"{word}th"): value
    for word, value in VALUE_OF_WORD.items()
    if value > 3 and value not in (5, 8, 9, 12)
}
_WORDS = {**_IRREGULAR, **_REGULAR, "hundredth": 100}
_TENS = {word: value for word, value in VALUE_OF_WORD.items() if value >= 20}
_DIGITS = re.compile(r"(\d{1,4})\s?(?:\^\s?\{?\s?)?(st|nd|rd|th)\}?", re.IGNORECASE)
_ENDINGS = {1: "st", 2: "nd", 3: "rd"}


def parse_ordinal(text: str, question: str = "") -> int | None:
    """Value of an ordinal number, with at most words of the question behind it; None for anything else."""
    if len(text) > MAX_CHARS:
        return None
    words = re.split(r"[\s-]+", bare_text(text).casefold())
    if words[0] in ("the", "in", "on", "at"):
        words = words[2:] if words[1:2] == ["the"] else words[1:]
    known = set(re.findall(r"\w+", question.casefold()))
    asked = set(words_of(question))
    while len(words) > 1 and words[-1].isalpha() and (words[-1] in known or set(words_of(words[-1])) <= asked):
        words.pop()
    if len(words) == 2 and words[0] in _TENS and 0 < _WORDS.get(words[1], 0) < 10:
        return _TENS[words[0]] + _WORDS[words[1]]
    if len(words) != 1:
        return None
    if found := _DIGITS.fullmatch(words[0]):
        value = int(found.group(1))  # "3th" is a slip that may be 30th: the ending must fit
        ending = "th" if value % 100 in (11, 12, 13) else _ENDINGS.get(value % 10, "th")
        return value if found.group(2).casefold() == ending else None
    return _WORDS.get(words[0])


def compare(answer: str, ground_truth: str, context: Context = STRICT) -> Grade | None:
    """Applies where the ground truth is an ordinal number, or a plain one where the question asks for a position.

    Says nothing where the question asks for a fraction, and, short of equality, of an answer that is no number.
    """
    question = context.question
    truth = None if asks.asks_fraction(question) else parse_ordinal(ground_truth, question)
    given = parse_ordinal(answer, question)
    places = asks.asks_position(question) and not asks.asks_amount(question)
    if truth is None:
        same = places and given is not None and _whole(ground_truth) == given
        return Grade(Verdict.CORRECT, RULE, f"place {given}") if same else None
    if given is None and places:
        given = _whole(answer)
    if given is None and parse_quantity(answer, question) is None:
        return None
    return Grade.of(given == truth, RULE, f"place {given} against {truth}")


def _whole(text: str) -> int | None:
    """Value of a plain whole number, in digits or a word; None for anything else."""
    bare = bare_text(text)
    if re.fullmatch(r"\d{1,6}", bare):
        return int(bare)
    return VALUE_OF_WORD.get(bare.casefold())
