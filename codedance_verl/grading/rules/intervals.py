"""Matcher: an interval of numbers, in brackets or as an inequality ("(3, ∞)", "x > 3", "[-1, 4]", "-1 ≤ x ≤ 4")."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from fractions import Fraction

from codedance_verl.grading import question_kind as asks
from codedance_verl.grading.context import STRICT, Context
from codedance_verl.grading.rules.latex import unwrap
from codedance_verl.grading.rules.normalise import ascii_digits
from codedance_verl.grading.rules.number import parse_quantity
from codedance_verl.types import Grade

RULE = "interval"

# A longer text is no interval.
MAX_CHARS = 100

# Spellings of one sign each, brought to the character; "x in" in front is dropped.
_TYPED = (
    (re.compile(r"\\(?:leq?|leqslant)(?![A-Za-z])|<=|\N{LESS-THAN OR EQUAL TO}"), "\N{LESS-THAN OR EQUAL TO}"),
    (re.compile(r"\\(?:geq?|geqslant)(?![A-Za-z])|>=|\N{GREATER-THAN OR EQUAL TO}"), "\N{GREATER-THAN OR EQUAL TO}"),
    (re.compile(r"\\lt(?![A-Za-z])"), "<"),
    (re.compile(r"\\gt(?![A-Za-z])"), ">"),
    (re.compile(r"\\infty(?![A-Za-z])|\binf(?:inity)?\b"), "\N{INFINITY}"),
    (re.compile(r"\\left(?![A-Za-z])|\\right(?![A-Za-z])|\\[,;! ]"), ""),
    (re.compile(r"^\s*[A-Za-z]\s*(?:\\in(?![A-Za-z])|\N{ELEMENT OF}|\bin\b)\s*"), ""),
)
_BRACKETS = re.compile(r"([(\[])([^(),\[\]]+),([^(),\[\]]+)([)\]])")
_SIGN = "[<>\N{LESS-THAN OR EQUAL TO}\N{GREATER-THAN OR EQUAL TO}]"
_ONE_SIDED = re.compile(rf"([^<>\u2264\u2265]+)({_SIGN})([^<>\u2264\u2265]+)")
_TWO_SIDED = re.compile(rf"([^<>\u2264\u2265]+)({_SIGN})\s*([A-Za-z])\s*({_SIGN})([^<>\u2264\u2265]+)")
_VARIABLE = re.compile(r"\s*[A-Za-z]\s*")
# the sign as read from the other side: 3 < x is x > 3
_TURNED = dict(zip("<>\u2264\u2265", "><\u2265\u2264", strict=True))


@dataclass(frozen=True)
class Interval:
    """Ends, None where there is none, and whether each belongs to it; `name` is the variable of an inequality."""

    low: Fraction | None
    low_closed: bool
    high: Fraction | None
    high_closed: bool
    name: str = ""


def parse_interval(text: str) -> Interval | None:
    """Reads an interval between numbers, of which at least one is there; None for anything else."""
    if len(text) > MAX_CHARS:
        return None
    plain = ascii_digits(unwrap(text)).strip().rstrip(".")
    for pattern, sign in _TYPED:
        plain = pattern.sub(sign, plain)
    if found := _BRACKETS.fullmatch(plain.strip()):
        return _of_ends(found[2], found[1] == "[", found[3], found[4] == "]", "")
    if found := _TWO_SIDED.fullmatch(plain):
        first, second = found[2], found[4]
        if (first in "<\u2264") != (second in "<\u2264"):  # "1 < x > 3" is no interval
            return None
        ends = (found[1], first in "\u2264\u2265", found[5], second in "\u2264\u2265")
        return _of_ends(*(ends if first in "<\u2264" else (*ends[2:], *ends[:2])), found[3])
    if found := _ONE_SIDED.fullmatch(plain):
        left, sign, right = found.groups()
        if not _VARIABLE.fullmatch(left):
            left, sign, right = right, _TURNED[sign], left
        if not _VARIABLE.fullmatch(left):
            return None
        closed = sign in "\u2264\u2265"
        if sign in ">\u2265":
            return _of_ends(right, closed, "\N{INFINITY}", False, left.strip())
        return _of_ends("-\N{INFINITY}", False, right, closed, left.strip())
    return None


def compare(answer: str, ground_truth: str, context: Context = STRICT) -> Grade | None:
    """Applies where one side is an interval in brackets and the other an inequality.

    Two numbers in brackets are an interval only where they can be no point: with a square bracket or without an end,
    or where the question asks for an interval.
    """
    truth, given = parse_interval(ground_truth), parse_interval(answer)
    # two intervals in one notation are the comparison of lists or formulas
    if truth is None or given is None or bool(truth.name) == bool(given.name):
        return None
    bracketed = ground_truth if given.name else answer
    certain = re.search(r"[\[\]\N{INFINITY}]|\\infty|inf", bracketed) is not None
    if not certain and not asks.asks_interval(context.question):
        return None
    same = replace(given, name=truth.name) == truth
    return Grade.of(same, RULE, f"{given} against {truth}"[:300])


def _of_ends(low: str, low_closed: bool, high: str, high_closed: bool, name: str) -> Interval | None:
    """An interval of two ends as texts; None where one is no number, or where they are not in order."""
    endless = (_is_infinity(low, "-"), _is_infinity(high, "+"))
    first, second = (None if no_end else _value(text) for text, no_end in zip((low, high), endless, strict=True))
    # an infinite end stands on its own side, a finite one is a number
    if all(endless) or (first is None) != endless[0] or (second is None) != endless[1]:
        return None
    if first is not None and second is not None and first >= second:
        return None
    return Interval(first, low_closed, second, high_closed, name)


def _is_infinity(text: str, sign: str) -> bool:
    bare = text.replace(" ", "")
    return bare.endswith("\N{INFINITY}") and (bare[:-1] or "+") == sign


def _value(text: str) -> Fraction | None:
    quantity = parse_quantity(text)
    return quantity.value if quantity is not None and quantity.unit is None and not quantity.words else None
