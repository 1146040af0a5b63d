"""Matchers: several things, as a set ("{1, 2}", any order) or as a list ("3, 4", in order).

The ground truth says which by its braces; a record may say so with its style. Elements are compared as texts, numbers
or options.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from codedance_verl.grading.context import STRICT, Context
from codedance_verl.grading.question_kind import asks_interval, asks_order, asks_several, asks_solutions
from codedance_verl.grading.rules import exact_text, number
from codedance_verl.grading.rules.latex import depth, to_plain
from codedance_verl.grading.rules.normalise import ascii_digits, strip_wrapping
from codedance_verl.grading.rules.options import parse_choice
from codedance_verl.grading.rules.pairing import most_pairs
from codedance_verl.types import Grade, Verdict

SET_RULE, LIST_RULE = "set", "list"

# Bounds of an enumeration: elements, nested brackets. Beyond them a text is none.
MAX_ELEMENTS = 64
MAX_DEPTH = 6

_BRACKETS = {"{": "}", "[": "]", "(": ")"}
# one number, unless it stands in brackets
_THOUSANDS = re.compile(r"[-+]?\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_GROUPED = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?!,?\d)")
_SPACED_COMMA = re.compile(r",\s")
_AND = re.compile(r",?\s+and\s+", re.IGNORECASE)
_SOLUTIONS = re.compile(r"\s+or\s+(?=[^\W\d_]\s*=)", re.IGNORECASE)  # "x = 2 or x = 5"


@dataclass(frozen=True)
class Elements:
    """Items of an enumeration, in order, and the bracket it began with, if any."""

    items: tuple[str, ...]
    bracket: str = ""


def parse_elements(text: str) -> Elements | None:
    """Reads an enumeration of two or more, or of one or none in brackets of its own; None for anything else."""
    plain = ascii_digits(to_plain(text)).strip().rstrip(".")
    if depth(plain) > MAX_DEPTH:
        return None
    bracket = plain[:1] if plain[:1] in _BRACKETS and plain[-1:] == _BRACKETS[plain[:1]] else ""
    # only where the first bracket is closed by the last
    inner = plain[1:-1] if bracket and _split(plain[1:-1]) is not None else plain
    bracket = bracket if inner is not plain else ""
    if not bracket and _THOUSANDS.fullmatch(inner.strip()):
        return None
    items = _split(_without_grouping(_AND.sub(", ", inner)) if not _nested(inner) else inner)
    if items is None or len(items) > MAX_ELEMENTS or not all(items):
        return Elements((), bracket) if bracket == "{" and not inner.strip() else None
    return Elements(tuple(items), bracket) if bracket or len(items) > 1 else None


def compare(answer: str, ground_truth: str, context: Context = STRICT) -> Grade | None:
    """Applies where the ground truth is a set in braces, or an enumeration.

    Says nothing, short of equality, where the truth is a list of texts: "Paris, France" is no list of two answers.
    """
    truth = parse_elements(ground_truth)
    if truth is None:
        return None
    if truth.bracket == "{" or "" not in _names(truth.items):
        return compare_sets(answer, ground_truth, context)
    any_order = not truth.bracket and _in_any_order(truth.items, context.question)
    grade = (compare_sets if any_order else compare_lists)(answer, ground_truth, context)
    return grade if grade.correct or all(map(number.parse_quantity, truth.items)) else None


def _in_any_order(items: Sequence[str], question: str) -> bool:
    """True if the question asks for several things without an order: numbers only where they are solutions, or such."""
    if not asks_several(question) or asks_order(question):
        return False
    return asks_solutions(question) or not any(map(number.parse_quantity, items))


def compare_sets(answer: str, ground_truth: str, context: Context = STRICT) -> Grade:
    """Compares as sets: correct where each element of one side has its own equal on the other.

    Where the truth says what each is ("x = 2, y = 3") and the answer does not, its order is all there is to go by.
    """
    truth = parse_elements(ground_truth) or Elements((ground_truth,))
    given = parse_elements(_SOLUTIONS.sub(", ", answer)) or Elements((answer,))
    names = _names(truth.items)
    if len(names) > 1 and "" not in names and "" in _names(given.items):
        return _grade(_in_order(given.items, truth.items, context), SET_RULE, given.items, truth.items)
    # only elements of the truth are compared among themselves: what others cost would be the answer's to choose
    same = all(any(_equal(item, other, context) for other in truth.items) for item in given.items)
    if same:
        left, right = _distinct(given.items, context), _distinct(truth.items, context)
        fits = [[_equal(item, other, context) for item in left] for other in right]
        same = len(left) == len(right) == most_pairs(fits)
    return _grade(same, SET_RULE, given.items, truth.items)


def compare_lists(answer: str, ground_truth: str, context: Context = STRICT) -> Grade:
    """Compares as lists: correct where both have the same elements in the same order.

    Round brackets may be missing; pairs in square brackets are intervals, others than those in round ones.
    """
    truth = parse_elements(ground_truth) or Elements((ground_truth,))
    given = parse_elements(answer) or Elements((answer,))
    brackets = {given.bracket, truth.bracket}
    fitting = len(brackets) == 1 or brackets == {"", "("} or ("{" not in brackets and len(truth.items) > 2)
    if brackets == {"[", ""} and given.bracket == "" and not asks_interval(context.question):
        fitting = True  # the text of a list
    return _grade(fitting and _in_order(given.items, truth.items, context), LIST_RULE, given.items, truth.items)


def _in_order(given: Sequence[str], truth: Sequence[str], context: Context) -> bool:
    return len(given) == len(truth) and all(map(_equal, given, truth, [context] * len(truth)))


def _names(items: Sequence[str]) -> set[str]:
    """Names of the items, the x of "x = 3"; empty for those without."""
    quantities = [number.parse_quantity(item) for item in items]
    return {quantity.name if quantity is not None else "" for quantity in quantities}


@lru_cache(maxsize=4096)  # elements that are sets are compared again and again
def _equal(left: str, right: str, context: Context) -> bool:
    nested = parse_elements(right)
    if nested is not None and nested.bracket:
        return (compare_sets if nested.bracket == "{" else compare_lists)(left, right, context).correct
    rules = (exact_text.compare, _same_letter, number.compare)
    return any((grade := rule(left, right, context)) is not None and grade.correct for rule in rules)


def _same_letter(left: str, right: str, context: Context) -> Grade | None:
    """Applies to the letter of an option in another form ("(A)" for "A"), which is correct."""
    given, truth = parse_choice(left), parse_choice(right)
    same = truth is not None and given == truth and not truth.text
    return Grade(Verdict.CORRECT, LIST_RULE) if same else None


def _distinct(items: Sequence[str], context: Context) -> list[str]:
    """Elements without repetitions; what only a tolerance makes alike stays apart."""
    exact = Context(question=context.question)
    kept: list[str] = []
    for item in items:
        if not any(_equal(item, other, exact) for other in kept):
            kept.append(item)
    return kept


def _split(text: str) -> list[str] | None:
    """Parts between commas or semicolons outside of brackets, wrapping removed; None where brackets do not match."""
    separator = ";" if ";" in text else ","
    parts, open_brackets, start = [], [], 0
    for place, char in enumerate(text):
        if char in _BRACKETS:
            open_brackets.append(_BRACKETS[char])
        elif char in _BRACKETS.values():
            if not open_brackets or open_brackets.pop() != char:
                return None
        elif char == separator and not open_brackets:
            parts.append(text[start:place])
            start = place + 1
    if open_brackets:
        return None
    return [part.strip() if _nested(part) else strip_wrapping(part) for part in [*parts, text[start:]]]


def _without_grouping(text: str) -> str:
    """Text without the commas that group digits ("1,000, 2,000"); where none has a space behind it, all separate."""
    return _GROUPED.sub(lambda found: found.group().replace(",", ""), text) if _SPACED_COMMA.search(text) else text


def _nested(text: str) -> bool:
    return any(bracket in text for bracket in _BRACKETS)


def _grade(same: bool, rule: str, given: Sequence[str], truth: Sequence[str]) -> Grade:
    return Grade.of(same, rule, f"{list(given)!r} against {list(truth)!r}"[:500])
