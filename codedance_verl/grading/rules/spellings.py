"""Spellings of numbers that depend on the language, the question or the other side, brought to one before reading.

"1 234 567", "62,5 %", "25 C" of a temperature, 5'3", "3 pounds" beside "£3".
"""

from __future__ import annotations

import re

from codedance_verl.grading import question_kind as asks

# blanks that group digits, in front of the end, decimals or something that is no digit
_SPACED = re.compile(r"(?<![\w.,/])\d{1,3}(?:[ \u00a0\u2009\u202f]\d{3})+(?=$|[.,]\d{1,2}(?!\d)|\s*[^\s\d/,.])")
_DECIMAL_COMMA = re.compile(r"(?P<whole>[-+]?\d{1,9}),(?P<part>\d{1,2}|\d{4,9})(?P<rest>\s*[^\d,;\s][^\d,;]*)?")
_GROUPED_COMMA = re.compile(r"(?P<whole>[-+]?\d{1,3}(?:\.\d{3})+),(?P<part>\d{1,2})(?P<rest>\s*[^\d,;]*)?")
# two points or more: one alone is a decimal point
_GROUPED_POINTS = re.compile(r"[-+]?\d{1,3}(?:\.\d{3}){2,}(?![\d.,])")
_PLAIN_UNIT = re.compile(r"\s*(?:%|[\N{EURO SIGN}$\N{POUND SIGN}]|[^\W\d_]{1,3}(?:/[^\W\d_]{1,2})?)\s*")
_DEGREES = re.compile(r"(?<=\d)\s?(?:deg\.?\s?)?([CF])\.?$|(?<=\d)\s?\N{DEGREE SIGN}\s?([CF])\.?$")
_SAYS_DEGREES = re.compile(
    r"[\N{DEGREE CELSIUS}\N{DEGREE FAHRENHEIT}]|\N{DEGREE SIGN}\s?[CF]\b|\b(?:celsius|fahrenheit)\b|\bdegrees?\s[CF]\b",
    re.IGNORECASE,
)
# then C and F are coulombs and farads
_ELECTRIC = re.compile(r"\b(?:charges?|capacit\w+|coulombs?|farads?)\b", re.IGNORECASE)
_POUND_SIGN = re.compile(r"\N{POUND SIGN}|\bGBP\b")
_POUNDS = re.compile(r"\bpounds?(?:\s+sterling)?\b", re.IGNORECASE)
# then a pound is no money
_WEIGHT = re.compile(r"\b(?:weigh\w*|mass|heavy|heavier|lbs?)\b", re.IGNORECASE)
_YUAN = re.compile(r"\b(?:yuan|RMB|CNY)\b|元|块", re.IGNORECASE)
# look-alikes of the degree sign, of feet and of inches
_SIGNS = str.maketrans("\u00ba\u02da\u2019\u2032\u201d\u2033", "\u00b0\u00b0''\"\"")


def plain_number(text: str, question: str = "") -> str:
    """A text whose groups of digits have no spaces, and whose decimal comma, where it is one for certain, is a point.

    A comma is one with a zero before it or a unit behind, or in a question of a language that writes it so; "3,5" alone
    may be two numbers.
    """
    text = _SPACED.sub(lambda found: re.sub(r"\s", "", found.group()), text.translate(_SIGNS))
    if asks.writes_decimal_commas(question) and _GROUPED_POINTS.match(text):
        text = _GROUPED_POINTS.sub(lambda found: found.group().replace(".", ""), text)
    found = _DECIMAL_COMMA.fullmatch(text.strip())
    if found is None and asks.writes_decimal_commas(question):
        found = _GROUPED_COMMA.fullmatch(text.strip())
    if found is None:
        return text
    rest = found.group("rest") or ""
    certain = re.fullmatch(r"[-+]?0", found.group("whole")) is not None or _PLAIN_UNIT.fullmatch(rest) is not None
    if not certain and not asks.writes_decimal_commas(question):
        return text
    return f"{found.group('whole').replace('.', '')}.{found.group('part')}{rest}"


def beside(text: str, other: str, question: str = "") -> str:
    """A text as it reads beside the one it is compared with: the C of a temperature, the pounds and yuan of money."""
    if asks.asks_temperature(question) or (_SAYS_DEGREES.search(other) and not _ELECTRIC.search(question)):
        text = _DEGREES.sub(lambda found: f" \N{DEGREE SIGN}{found.group(1) or found.group(2)}", text.strip())
    if _POUND_SIGN.search(other) and not _WEIGHT.search(question):
        text = _POUNDS.sub("GBP", text)
    if _YUAN.search(other) or (asks.writes_han(question) and "\N{YEN SIGN}" in text):
        text = re.sub("[\N{YEN SIGN}\N{FULLWIDTH YEN SIGN}]", "CNY ", text)
    return text
