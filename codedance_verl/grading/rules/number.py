"""Matcher: the same quantity, however it is written ("3", "3.0", "three", "1,000", "1/2", "1 m" for "100 cm").

Values agree exactly unless the context allows a relative tolerance. What only one side adds to the number, a unit or
the name of what was counted, must stand in the question; degrees and the sign of a currency may be left out. Where each
side has a word that the other has not ("3 more", "3 fewer"), they differ.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction

from codedance_verl.grading import question_kind as asks
from codedance_verl.grading.context import STRICT, Context
from codedance_verl.grading.rules import numerals, units
from codedance_verl.grading.rules.asked_names import strip_name
from codedance_verl.grading.rules.implied_words import implied_words
from codedance_verl.grading.rules.magnitudes import asked_scale, split_scale
from codedance_verl.grading.rules.normalise import bare_text, strip_wrapping, word_set, words_of
from codedance_verl.grading.rules.spellings import beside, plain_number
from codedance_verl.grading.rules.units import Unit, is_currency, names_unit, parse_unit
from codedance_verl.types import Grade, Verdict

RULE = "number"

# A longer text is no number.
MAX_CHARS = 200

# groups of three digits by commas or narrow blanks, or plain digits
_UNSIGNED = r"(?:\d{1,3}(?:[,\u00a0\u2009\u202f]\d{3})+(?:\.\d+)?|\d+(?:\.\d*)?|\.\d+)"
# name, sign, currency, sign again ("$-5"), a mixed number, a fraction or a decimal with its power of ten, and the rest
_NUMBER = re.compile(
    rf"(?:(?P<name>[^\W\d_]\w{{0,3}})?\s*(?:=|\N{{ALMOST EQUAL TO}})\s*)?\N{{ALMOST EQUAL TO}}?\s*"
    rf"(?P<sign>[-+]?)\s*(?P<currency>(?:US)?[{units.CURRENCY_SIGNS}]|(?:USD|EUR|GBP|JPY|CNY|INR)(?=\s))?\s*(?P<inner>[-+]?)"
    rf"(?:(?P<whole>\d{{1,6}})\s+(?P<top>\d{{1,6}})/(?P<bottom>\d{{1,6}})"
    rf"|(?P<over>\d{{1,12}})\s*/\s*(?P<under>\d{{1,12}})"
    rf"|(?P<value>{_UNSIGNED})(?:[eE](?P<exponent>[-+]?\d{{1,3}})|"
    rf"\s*(?:\N{{MULTIPLICATION SIGN}}|x|\*|\\times|\\cdot)\s*"
    r"10\s*\^\s*\{?(?P<power>[-+]?\d{1,3})\}?)?)"
    r"(?P<rest>.*)",
    re.DOTALL,
)
_PART_OF_SEVERAL = re.compile(
    r"\s*(?:,|and\s)?\s*(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>['\"]|[^\W\d_]+)(?=\s*(?:,|and\s|\d|$))", re.IGNORECASE
)
_MAX_PARTS = 4
_HAN_NUMBER = re.compile(rf"(百分之)?([{numerals.HAN_NUMERALS}]+|\d+(?:\.\d+)?)(.*)", re.DOTALL)
# Chinese and Japanese counters between a number and what is counted
_HAN_COUNTER = re.compile(
    r"\s?[个個只隻条條张張本辆輛人名位头頭匹棵朵件台座间間杯瓶把块塊支根架艘颗片次枚つ種种](\w{0,6})"
)
_NOTHING = frozenset({"none", "nothing", "nil", "there are none", "none of them", "no one", "nobody", "没有"})
_NO_THINGS = re.compile(r"(?:there\s+(?:are|is)\s+)?no\s+(?P<things>[^\W\d_]+(?:\s+[^\W\d_]+){0,3})", re.IGNORECASE)
_WORDS = re.compile(r"[^\W\d_]+(?:[\s-]+[^\W\d_]+){0,4}")
_THERE_IS = re.compile(r"(?:there\s+(?:is|are)|it\s+is|it's|i\s+(?:see|count))\s+(?:exactly\s+)?(?=\S)", re.IGNORECASE)
# "3 (three)": both must be the same
_SAID_TWICE = re.compile(r"([^()]+)\s\(([^()]+)\)")
# "5 = x"
_SWAPPED = re.compile(r"\A([-+]?\d[\d./]*)\s*=\s*([A-Za-z])\Z")
_BEFORE = re.compile(r"(?:[^\W\d_]+\s+){1,4}(?=\d)")
_SIGN = re.compile(r"(negative|minus|positive)\s+(?!negative|minus|positive|[-+])(?=\S)", re.IGNORECASE)
_SIGN_WORDS = word_set("negative minus positive")
# an answer with these may be an exact form of the number, which `expression` compares
_FORMULA = re.compile(r"\\[A-Za-z]+|\N{SQUARE ROOT}|\N{GREEK SMALL LETTER PI}|\bsqrt\b|\bpi\b|\^")
# capitals that are rarely the symbol of a unit
_RARE_CAPITALS = frozenset("BDEGIMOPQRSUXYZ")
# words that make several numbers, a bound or a doubt of one
_NO_NAMES = frozenset({"or", "and", "not", "no", "to", "minus", "plus", "times", "about", "than", "between", "maybe"})


@dataclass(frozen=True)
class Quantity:
    """A number and what stands beside it: a unit, or words that name what was counted; `name` is the x of "x = 3"."""

    value: Fraction
    unit: Unit | None = None
    words: tuple[str, ...] = ()
    name: str = ""


def parse_quantity(text: str, question: str = "") -> Quantity | None:
    """Reads a text that is one number with at most a unit or a few words behind it; else None.

    Words in front of it must be those of the question ("In the year 2019").
    """
    if len(text) > MAX_CHARS:
        return None
    plain = bare_text(numerals.spell_out_fractions(text))
    bare = _SWAPPED.sub(r"\2 = \1", strip_wrapping(plain_number(plain, question)))
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
    if (several := _from_parts(bare)) is not None:
        return several
    if found := _NUMBER.fullmatch(bare):
        return _from_digits(found, question)
    return _from_words(bare, question)


def parse_answer(text: str, question: str) -> Quantity | None:
    """Quantity as of `parse_quantity`, also with the name of what the question asks for in front ("AC is 5")."""
    if len(text) > MAX_CHARS:
        return None
    named = strip_name(bare_text(text), question)
    return parse_quantity(named, question) if named is not None else None


def compare(answer: str, ground_truth: str, context: Context = STRICT) -> Grade | None:
    """Applies where the ground truth is a quantity; an answer that is not exactly one is then wrong.

    Says nothing where the answer is a formula, and, short of equality, where the ground truth is a number with words
    that are no unit ("4 July").
    """
    question = context.question
    # "third" is a rank unless a fraction is asked for
    if numerals.may_be_ordinal(ground_truth) and not asks.asks_fraction(question):
        return None
    truth = parse_quantity(beside(ground_truth, answer, question), question)
    if truth is None:
        return _zero_for_nothing(answer, ground_truth, context)
    given = parse_answer(beside(answer, ground_truth, question), question)
    if given is None and says_nothing(answer, truth, question):
        given = Quantity(Fraction(0))
    evidence = f"{_show(given)} against {_show(truth)}"
    if given is not None and agree(given, truth, context):
        return Grade(Verdict.CORRECT, RULE, evidence)
    if truth.words or (given is None and len(answer) <= MAX_CHARS and _FORMULA.search(answer)):
        return None
    return Grade(Verdict.WRONG, RULE, evidence)


def says_nothing(answer: str, truth: Quantity, question: str) -> bool:
    """True if "none" or "no dogs" stands for a count of zero."""
    if truth.value or truth.unit is not None or not (asks.asks_count(question) or not question):
        return False
    bare = strip_wrapping(answer).casefold()
    found = _NO_THINGS.fullmatch(bare)
    return bare in _NOTHING or (found is not None and set(words_of(found.group("things"))) <= set(words_of(question)))


def _zero_for_nothing(answer: str, ground_truth: str, context: Context) -> Grade | None:
    """Grade of a number where the truth is "none" and the question asks for a count; else None."""
    if strip_wrapping(ground_truth).casefold() not in _NOTHING or not asks.asks_count(context.question):
        return None
    given = parse_quantity(answer, context.question)
    return None if given is None else compare(answer, "0", context)


def _repeats(words: str, question: str) -> bool:
    """True if words in front of a number only repeat the question."""
    front = set(words_of(words))
    return front <= {"in", "the", *words_of(question)} and not front & (_NO_NAMES | _SIGN_WORDS)


def _from_parts(text: str) -> Quantity | None:
    """Quantity of several units of one kind, each smaller than the one before ("1 h 30 min", 5'3"); else None."""
    total: Quantity | None = None
    place, parts, last = 0, 0, None
    # 5'3 is feet and inches; the m before seconds is minutes, not metres
    text = re.sub(r"^(\d+')\s?(\d+)$", r'\1 \2"', text)
    text = re.sub(r"^(\d+)\s?m(?=\s?\d+\s?s)", r"\1 min", text)
    while (found := _PART_OF_SEVERAL.match(text, place)) is not None and parts < _MAX_PARTS:
        name = found.group("unit")
        unit = parse_unit("min" if name == "m" and last is not None and last.dimension == (("s", 1),) else name)
        if unit is None or (last is not None and (unit.dimension != last.dimension or unit.factor >= last.factor)):
            return None
        value = Fraction(found.group("number")) * unit.factor + (total.value if total is not None else 0)
        total, place, parts, last = Quantity(value, Unit(unit.dimension)), found.end(), parts + 1, unit
    return total if parts > 1 and place == len(text) else None


def _from_digits(found: re.Match[str], question: str) -> Quantity | None:
    value = _value(found)
    if value is None or (found.group("sign") and found.group("inner")):
        return None
    if "-" in (found.group("sign"), found.group("inner")):
        value = -value
    rest, currency = found.group("rest"), found.group("currency")
    scale, rest = split_scale(rest, question, bool(currency))
    return _with_rest(value * scale, rest, currency, found.group("name") or "", question)


def _value(found: re.Match[str]) -> Fraction | None:
    """Number without its sign; None for a fraction over zero."""
    if found.group("whole"):
        top, bottom = int(found.group("top")), int(found.group("bottom"))
        return Fraction(found.group("whole")) + Fraction(top, bottom) if bottom > top > 0 else None
    if found.group("over"):
        return Fraction(int(found.group("over")), int(found.group("under"))) if int(found.group("under")) else None
    # through Decimal, which takes the digits as written: a float would round them
    exponent = found.group("exponent") or found.group("power") or "0"
    return Fraction(Decimal(re.sub(r"[,\s]", "", found.group("value")))) * Fraction(10) ** int(exponent)


def _from_words(text: str, question: str) -> Quantity | None:
    """A number in words, with its unit or noun: the longest beginning that is a number counts."""
    if (whole := numerals.parse_words(text)) is not None:
        return Quantity(Fraction(whole))
    if (part := numerals.parse_parts(text)) is not None:
        return Quantity(part)
    if han := _HAN_NUMBER.fullmatch(text):
        share, number, rest = han.groups()
        value = Fraction(number) if number[0].isascii() else numerals.parse_words(number)
        if value is None or not (share or rest) or (share and rest):
            return None
        return _with_rest(Fraction(value), "%" if share else rest, None, "", question)
    words = text.split()
    for length in range(min(len(words) - 1, 8), 0, -1):  # "one hundred and five dogs": the longest number wins
        value = numerals.parse_words(" ".join(words[:length]))
        if value is not None:
            return _with_rest(Fraction(value), " " + " ".join(words[length:]), None, "", question)
    return None


def _with_rest(value: Fraction, rest: str, currency: str | None, name: str, question: str) -> Quantity | None:
    """Adds what stands behind the number: nothing, a unit, or words."""
    behind = rest.strip()
    unit = parse_unit(currency) if currency else None
    if not behind:
        return Quantity(value, unit, name=name)
    if (found := parse_unit(behind)) is not None and _may_follow(rest, behind):
        return Quantity(value, found, name=name) if unit is None or unit == found else None
    if asks.writes_han(question) and (counter := _HAN_COUNTER.fullmatch(rest)) and counter.group(1) in question:
        return Quantity(value, unit, name=name)
    if currency or not _WORDS.fullmatch(behind) or not rest[:1].isspace():
        return None
    words = words_of(behind)
    if any(numerals.is_numeral_word(word) or word in _NO_NAMES for word in words):
        return None
    return Quantity(value, None, words, name)


def _may_follow(rest: str, unit: str) -> bool:
    """True but for a rare capital letter right behind digits, which may as well be a label ("3B")."""
    return rest[:1].isspace() or unit not in _RARE_CAPITALS


def agree(given: Quantity, truth: Quantity, context: Context) -> bool:
    """True if two quantities are the same: values, units and what was counted.

    A whole number without a unit, a count or a year, has no tolerance.
    """
    if given.name and truth.name and given.name != truth.name:
        return False
    left, right = given.value, truth.value
    if given.unit is not None and truth.unit is not None:
        alike = given.unit.dimension == truth.unit.dimension
        if not alike and not _is_on_asked_scale(given.unit, truth.unit, context.question):
            return False
        left, right = left * given.unit.factor, right * truth.unit.factor
    elif (extra := given.unit or truth.unit) is not None and not _may_be_left_out(extra, context.question):
        return False
    # the relaxed accuracy of ChartQA forgives 5 % of any number, so that 2008 would be 2014
    counted = truth.unit is None and right.denominator == 1
    tolerance = 0.0 if counted else context.relative_tolerance
    # "in millions": 12 and 12 million are one answer
    scale = asked_scale(context.question)
    same = any(_close(*pair, tolerance) for pair in {(left, right), (left, right * scale), (left * scale, right)})
    return same and same_names(given.words, truth.words, context.question)


def _is_on_asked_scale(first: Unit, second: Unit, question: str) -> bool:
    """True if one is a degree, the other of Celsius or Fahrenheit, and the question names that scale alone."""
    named = [scale for scale in (units.CELSIUS, units.FAHRENHEIT) if names_unit(question, scale)]
    return len(named) == 1 and {first, second} == {units.DEGREE, named[0]}


def _may_be_left_out(unit: Unit, question: str) -> bool:
    # "square units" of an area, "units" of a length: of the power that is asked for
    if unit.dimension[:1] and unit.dimension[0][0] == "unit" and len(unit.dimension) == 1:
        power = unit.dimension[0][1]
        area, volume = (word in question.casefold() for word in ("area", "volume"))
        return not asks.asks_count(question) and (area, volume) == (power == 2, power == 3)
    if is_currency(unit):
        return names_unit(question, unit) or not units.names_currency(question)
    return unit == units.DEGREE or names_unit(question, unit)


def same_names(given: tuple[str, ...], truth: tuple[str, ...], question: str) -> bool:
    """True if one side at most adds words beside its number, and the question has them all."""
    added, left_out = set(given) - set(truth), set(truth) - set(given)
    return not (added and left_out) and added | left_out <= {*words_of(question), *implied_words(question)}


def _close(given: Fraction, truth: Fraction, relative_tolerance: float) -> bool:
    return abs(given - truth) <= abs(truth) * Fraction(str(relative_tolerance))


def _show(quantity: Quantity | None) -> str:
    if quantity is None:
        return "no single number"
    value = quantity.value
    short = len(str(value.numerator)) <= 20 and value.denominator < 10**6
    shown = str(value) if short else f"{Decimal(value.numerator) / Decimal(value.denominator):.6g}"
    beside = " ".join(quantity.words) or (
        " ".join(f"{name}^{power}" for name, power in quantity.unit.dimension) if quantity.unit else ""
    )
    return f"{shown} {beside}".strip()
