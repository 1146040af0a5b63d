"""Rung: the same quantity, however it is written ("3", "3.0", "three", "1,000", "1/2", "1 m" for "100 cm").

Values agree exactly unless the context allows a relative tolerance. What only one side adds to the number, a unit or
the name of what was counted, must stand in the question; degrees and the sign of a currency may be left out. Where each
side has a word that the other has not ("3 more", "3 fewer"), they differ.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction

from codedance_verl.grading.context import STRICT, Context
from codedance_verl.grading.latex import to_plain
from codedance_verl.grading.normalise import ascii_digits, strip_wrapping, words_of
from codedance_verl.grading.numerals import SCALES, is_numeral_word, parse_parts, parse_words, spell_out_fractions
from codedance_verl.grading.units import CURRENCY_SIGNS, DEGREE, Unit, is_currency, names_unit, parse_unit
from codedance_verl.types import Grade, Verdict

RUNG = "number"

MAX_CHARS = 200
"""A longer text is no number."""

_UNSIGNED = r"(?:\d{1,3}(?:[,\u00a0\u2009\u202f]\d{3})+(?:\.\d+)?|\d+(?:\.\d*)?|\.\d+)"
_NUMBER = re.compile(
    rf"(?:(?P<name>[^\W\d_]\w{{0,3}})?\s*(?:=|\N{{ALMOST EQUAL TO}})\s*)?\N{{ALMOST EQUAL TO}}?\s*"
    rf"(?P<sign>[-+]?)\s*(?P<currency>(?:US)?[{CURRENCY_SIGNS}]|(?:USD|EUR|GBP|JPY|CNY|INR)(?=\s))?\s*(?P<inner>[-+]?)"
    rf"(?:(?P<whole>\d{{1,6}})\s+(?P<top>\d{{1,6}})/(?P<bottom>\d{{1,6}})"
    rf"|(?P<over>\d{{1,12}})\s*/\s*(?P<under>\d{{1,12}})"
    rf"|(?P<value>{_UNSIGNED})(?:[eE](?P<exponent>[-+]?\d{{1,3}})|"
    rf"\s*(?:\N{{MULTIPLICATION SIGN}}|x|\*|\\times|\\cdot)\s*"
    r"10\s*\^\s*\{?(?P<power>[-+]?\d{1,3})\}?)?)"
    r"(?P<rest>.*)",
    re.DOTALL,
)
_SCALE = re.compile(rf"\s*(?P<word>{'|'.join(SCALES)})s?\b\s*", re.IGNORECASE)
_SHORT_SCALE = {"k": 3, "K": 3, "M": 6, "B": 9, "bn": 9, "m": 6}  # behind a currency sign
_WORDS = re.compile(r"[^\W\d_]+(?:[\s-]+[^\W\d_]+){0,4}")
_THERE_IS = re.compile(r"(?:there\s+(?:is|are)|it\s+is|it's|i\s+(?:see|count))\s+(?:exactly\s+)?(?=\S)", re.IGNORECASE)
_SAID_TWICE = re.compile(r"([^()]+)\s\(([^()]+)\)")
_BEFORE = re.compile(r"(?:[^\W\d_]+\s+){1,4}(?=\d)")
_BEFORE_ANY = ("in", "the")
_SIGN = re.compile(r"(negative|minus|positive)\s+(?!negative|minus|positive|[-+])(?=\S)", re.IGNORECASE)
_SIGN_WORDS = frozenset(words_of("negative minus positive"))
_FORMULA = re.compile(r"\\[A-Za-z]+|\N{SQUARE ROOT}|\N{GREEK SMALL LETTER PI}|\bsqrt\b|\bpi\b|\^")
_NO_NAMES = frozenset({"or", "and", "not", "no", "to", "minus", "plus", "times", "about", "than", "between", "maybe"})


@dataclass(frozen=True)
class Quantity:
    """A number and what stands beside it: a unit, or words that name what was counted; `name` is the x of "x = 3"."""

    value: Fraction
    unit: Unit | None = None
    words: tuple[str, ...] = ()
    name: str = ""


def parse_quantity(text: str, question: str = "") -> Quantity | None:
    """Read a text that is one number with at most a unit or a few words behind it; else None.

    Words in front of it must be those of the question ("In the year 2019").
    """
    if len(text) > MAX_CHARS:
        return None
    bare = strip_wrapping(to_plain(ascii_digits(spell_out_fractions(text))))
    bare = bare[found.end() :] if (found := _THERE_IS.match(bare)) else bare
    if (found := _BEFORE.match(bare)) and _repeats(found.group(), question):
        bare = bare[found.end() :]
    if (said_twice := _SAID_TWICE.fullmatch(bare)) is not None:
        first, second = (parse_quantity(part, question) for part in said_twice.groups())
        return first if first == second else None
    if signed := _SIGN.match(bare):
        unsigned = parse_quantity(bare[signed.end() :])
        if unsigned is None or signed.group(1).casefold() == "positive":
            return unsigned
        return replace(unsigned, value=-unsigned.value)
    if found := _NUMBER.fullmatch(bare):
        return _from_digits(found)
    return _from_words(bare)


def compare(answer: str, ground_truth: str, context: Context = STRICT) -> Grade | None:
    """Applies where the ground truth is a quantity; an answer that is not exactly one is then wrong.

    Says nothing where the answer is a formula, and, short of equality, where the ground truth is a number with words
    that are no unit ("4 July").
    """
    truth = parse_quantity(ground_truth)
    if truth is None:
        return None
    given = parse_quantity(answer, context.question)
    evidence = f"{_show(given)} against {_show(truth)}"
    if given is not None and _agree(given, truth, context):
        return Grade(Verdict.CORRECT, RUNG, evidence)
    if truth.words or (given is None and len(answer) <= MAX_CHARS and _FORMULA.search(answer)):
        return None
    return Grade(Verdict.WRONG, RUNG, evidence)


def _repeats(words: str, question: str) -> bool:
    """Whether words in front of a number only repeat the question."""
    said = set(words_of(words))
    return said <= {*_BEFORE_ANY, *words_of(question)} and not said & (_NO_NAMES | _SIGN_WORDS)


def _from_digits(found: re.Match[str]) -> Quantity | None:
    value = _value(found)
    if value is None or (found.group("sign") and found.group("inner")):
        return None
    if "-" in (found.group("sign"), found.group("inner")):
        value = -value
    rest, currency = found.group("rest"), found.group("currency")
    if scale := _SCALE.match(rest):
        value, rest = value * SCALES[scale.group("word").casefold()], rest[scale.end() :]
    elif rest == "k" or (currency and rest.strip() in _SHORT_SCALE):
        value, rest = value * 10 ** _SHORT_SCALE[rest.strip()], ""
    return _with_rest(value, rest, currency, found.group("name") or "")


def _value(found: re.Match[str]) -> Fraction | None:
    """The number without its sign; None for a fraction over zero."""
    if found.group("whole"):
        top, bottom = int(found.group("top")), int(found.group("bottom"))
        return Fraction(found.group("whole")) + Fraction(top, bottom) if bottom > top > 0 else None
    if found.group("over"):
        return Fraction(int(found.group("over")), int(found.group("under"))) if int(found.group("under")) else None
    exponent = found.group("exponent") or found.group("power") or "0"
    return Fraction(Decimal(re.sub(r"[,\s]", "", found.group("value")))) * Fraction(10) ** int(exponent)


def _from_words(text: str) -> Quantity | None:
    """A number in words, with its unit or noun: the longest beginning that is a number counts."""
    whole = parse_words(text)
    if whole is not None:
        return Quantity(Fraction(whole))
    if (part := parse_parts(text)) is not None:
        return Quantity(part)
    words = text.split()
    for length in range(min(len(words) - 1, 8), 0, -1):
        value = parse_words(" ".join(words[:length]))
        if value is not None:
            return _with_rest(Fraction(value), " " + " ".join(words[length:]), None, "")
    return None


def _with_rest(value: Fraction, rest: str, currency: str | None, name: str) -> Quantity | None:
    """Add what stands behind the number: nothing, a unit, or words."""
    behind = rest.strip()
    unit = parse_unit(currency) if currency else None
    if not behind:
        return Quantity(value, unit, name=name)
    if (found := parse_unit(behind)) is not None and _may_follow(rest, behind):
        return Quantity(value, found, name=name) if unit is None or unit == found else None
    if currency or not _WORDS.fullmatch(behind) or not rest[:1].isspace():
        return None
    words = words_of(behind)
    if any(is_numeral_word(word) or word in _NO_NAMES for word in words):
        return None
    return Quantity(value, None, words, name)


def _may_follow(rest: str, unit: str) -> bool:
    """A capital letter right behind digits may be a label ("3B") as well as a unit, except for the common ones."""
    return rest[:1].isspace() or len(unit) > 1 or not unit.isalpha() or unit.islower() or unit in "AVWNJKCFTHL"


def _agree(given: Quantity, truth: Quantity, context: Context) -> bool:
    if given.name and truth.name and given.name != truth.name:
        return False
    left, right = given.value, truth.value
    if given.unit is not None and truth.unit is not None:
        if given.unit.dimension != truth.unit.dimension:
            return False
        left, right = left * given.unit.factor, right * truth.unit.factor
    elif (extra := given.unit or truth.unit) is not None and not _may_be_left_out(extra, context.question):
        return False
    return same_names(given.words, truth.words, context.question) and _close(left, right, context.relative_tolerance)


def _may_be_left_out(unit: Unit, question: str) -> bool:
    return unit == DEGREE or is_currency(unit) or names_unit(question, unit)


def same_names(given: tuple[str, ...], truth: tuple[str, ...], question: str) -> bool:
    """Whether one side at most adds words beside its number, and the question has them all."""
    added, left_out = set(given) - set(truth), set(truth) - set(given)
    return not (added and left_out) and added | left_out <= set(words_of(question))


def _close(given: Fraction, truth: Fraction, relative_tolerance: float) -> bool:
    return abs(given - truth) <= abs(truth) * Fraction(str(relative_tolerance))


def _show(quantity: Quantity | None) -> str:
    if quantity is None:
        return "no single number"
    value = quantity.value
    shown = str(value) if len(str(value.numerator)) <= 20 and value.denominator < 10**6 else f"{_rounded(value)}"
    beside = " ".join(quantity.words) or (
        " ".join(f"{name}^{power}" for name, power in quantity.unit.dimension) if quantity.unit else ""
    )
    return f"{shown} {beside}".strip()


def _rounded(value: Fraction) -> str:
    return f"{Decimal(value.numerator) / Decimal(value.denominator):.6g}"
