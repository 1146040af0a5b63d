"""Rule of counting benchmarks, for which no official one is published: the one integer that a reply states.

Digits go before words, as "one" and "two" also stand for things ("the one on the left"). A reply with several
different numbers states none.
"""

from __future__ import annotations

import re

from codedance_verl.tasks.item import Item, Score

RULE = "one_integer"

DEFINITION = (
    "no official rule is published: the one integer that the reply states, in digits or as a word from zero to twenty; "
    "none or several different ones are wrong"
)

_WORDS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"),
)
_VALUES = {word: value for value, word in enumerate(_WORDS)}
# hyphens count as part of a word: "one-way" and "twenty-one" hold no number
_WORD = re.compile(rf"(?<![\w-])(?:{'|'.join(_WORDS)})(?![\w-])", re.IGNORECASE)
# Digits of a number, at most: more are no count, and slow to convert.
_MOST_DIGITS = 18

# One group of digits more than a count has is enough to see that it is none.
_NUMBER = re.compile(rf"-?\d{{1,3}}(?:,\d{{3}}){{1,{_MOST_DIGITS // 3}}}(?:\.\d+)?(?![\d,])|-?\d+(?:\.\d+)?")


def score_count(item: Item, reply: str) -> Score:
    """Official score of a reply to a counting question, whose truth is an integer in digits."""
    if item.truth is None:
        return Score(None, RULE, reason="the item has no truth")
    stated = stated_integer(reply)
    return Score.of(stated is not None and stated == int(item.truth), RULE, None if stated is None else str(stated))


def stated_integer(reply: str) -> int | None:
    """Integer that a reply states; None for no number, a fraction, or several different numbers."""
    numbers = _NUMBER.findall(reply)
    if numbers:
        values = {_integer(number) for number in numbers}
    else:
        values = {_VALUES[word.lower()] for word in _WORD.findall(reply)}
    return values.pop() if len(values) == 1 else None


def _integer(number: str) -> int | None:
    """Value of digits; None for a fraction, and for what is too long to be a count."""
    whole, _, fraction = number.replace(",", "").partition(".")
    return None if fraction.strip("0") or len(whole) > _MOST_DIGITS else int(whole)
