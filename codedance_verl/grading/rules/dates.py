"""Matcher: dates ("March 5, 2020", "5 March 2020", "2020-03-05"), months, quarters of a year and decades ("1990s").

A date of digits alone whose day and month could be either way round is one only where the question says which is first.
"""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass

from codedance_verl.grading.context import STRICT, Context
from codedance_verl.grading.rules.latex import to_plain
from codedance_verl.grading.rules.normalise import ascii_digits, bare_text
from codedance_verl.types import Grade

RULE = "date"

# A longer text is no date; the bound keeps the patterns below cheap.
MAX_CHARS = 60

_MONTHS = (
    *("january", "february", "march", "april", "may", "june"),
    *("july", "august", "september", "october", "november", "december"),
)
_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_MONTH_OF = {spelling: place for place, name in enumerate(_MONTHS, 1) for spelling in (name, name[:3])} | {"sept": 9}
_DAY_OF = {spelling: place for place, name in enumerate(_DAYS) for spelling in (name, name[:3])}
_DAY_OF |= {"tues": 1, "thur": 3, "thurs": 3}
_QUARTERS = {"first": 1, "1st": 1, "second": 2, "2nd": 2, "third": 3, "3rd": 3, "fourth": 4, "4th": 4}
# from the thirties on: "the twenties" may be those of this century
_DECADE_NAMES = ("thirties", "forties", "fifties", "sixties", "seventies", "eighties", "nineties")
_DECADES = dict(zip(_DECADE_NAMES, range(30, 100, 10), strict=True))
# longest first, so that "mar" does not end the match of "march"
_MONTH = rf"(?P<month>{'|'.join(sorted(_MONTH_OF, key=len, reverse=True))})"
_DAY = r"(?P<day>\d{1,2})(?:st|nd|rd|th)?"
_YEAR = r"(?P<year>[12]\d{3})"
_WEEKDAY = rf"(?:(?P<weekday>{'|'.join(sorted(_DAY_OF, key=len, reverse=True))})\s+)?"
_FORMS = tuple(
    re.compile(form)
    for form in (
        rf"{_WEEKDAY}{_MONTH}\s*{_DAY}(?:\s+{_YEAR})?",
        rf"{_WEEKDAY}(?:the\s+)?{_DAY}\s*(?:of\s+)?{_MONTH}(?:\s+{_YEAR})?",
        rf"{_YEAR}\s+{_MONTH}\s+{_DAY}",
        rf"{_MONTH}(?:\s+of)?\s+{_YEAR}",
        rf"{_YEAR}\s+{_MONTH}",
        _MONTH,
        r"(?P<year>[12]\d{3})([-/.])(?P<month>\d{1,2})\2(?P<day>\d{1,2})",
        r"(?P<year>[12]\d{3})\s?年\s?(?P<month>\d{1,2})\s?月(?:\s?(?P<day>\d{1,2})\s?[日号])?",
        r"(?P<month>\d{1,2})\s?月\s?(?P<day>\d{1,2})\s?[日号]",
    )
)
_DIGITS = re.compile(r"(\d{1,2})([-/.])(\d{1,2})(?:\2([12]\d{3}))?")
_QUARTER = re.compile(
    r"(?:q(?P<q>[1-4])|(?P<word>first|second|third|fourth|1st|2nd|3rd|4th)\s+quarter)(?:\s+of)?\s*(?P<year>[12]\d{3})"
)
_QUARTER_LAST = re.compile(r"(?P<year>[12]\d{3})\s*q(?P<q>[1-4])")
_DECADE = re.compile(r"(?:the\s+)?(?P<century>1\d|20)?'?(?P<tens>\d)0'?s", re.IGNORECASE)
_DECADE_WORD = re.compile(rf"(?:the\s+)?(?:(?P<century>nineteen)[\s-])?(?P<word>{'|'.join(_DECADES)})", re.IGNORECASE)
_DURATION = re.compile(r"\b(?:how\s+long|seconds?|duration|time\s+limit)\b", re.IGNORECASE)
_PERIOD = re.compile(r"\b(?:decades?|era|period|when)\b", re.IGNORECASE)
_MONTH_FIRST = re.compile(r"\bmonth\s*[/.-]\s*day\b|\bmm?\s*[/.-]\s*dd?\b", re.IGNORECASE)
_DAY_FIRST = re.compile(r"\bday\s*[/.-]\s*month\b|\bdd?\s*[/.-]\s*mm?\b", re.IGNORECASE)


@dataclass(frozen=True)
class Date:
    """A day, a month or a quarter, of a year or of any; the parts that it does not say are 0."""

    year: int = 0
    month: int = 0
    day: int = 0
    quarter: int = 0


def parse_date(text: str, question: str = "") -> Date | None:
    """Reads a date of at least a month or a quarter; None for anything else, and for a day that is in no calendar."""
    if len(text) > MAX_CHARS:
        return None
    bare = bare_text(text).casefold()
    if numeric := _DIGITS.fullmatch(bare):
        return _of_digits(numeric, question)
    # commas and points go, and hyphens behind a letter or digit; not where they are those of 2020-03-05
    if _FORMS[6].fullmatch(bare) is None:
        bare = re.sub(
            r"^(?:in|on)\s+(?:the\s+)?(?=\w)", "", " ".join(re.sub(r"[,.]|(?<=[a-z\d])-(?=\w)", " ", bare).split())
        )
    if found := _QUARTER.fullmatch(bare) or _QUARTER_LAST.fullmatch(bare):
        groups = found.groupdict()
        return Date(int(groups["year"]), quarter=int(groups["q"] or 0) or _QUARTERS[groups["word"]])
    found = next((match for form in _FORMS if (match := form.fullmatch(bare))), None)
    return _of_groups(found.groupdict()) if found else None


def parse_decade(text: str) -> int | None:
    """First year of a decade ("1990s", "the 90s", "nineties": 1990); None for anything else.

    A decade without its century is one of the 20th, from the thirties on.
    """
    if len(text) > MAX_CHARS:
        return None
    plain = re.sub(
        r"[\N{LEFT SINGLE QUOTATION MARK}\N{RIGHT SINGLE QUOTATION MARK}]", "'", ascii_digits(to_plain(text))
    )
    bare = plain.strip().strip('*_."').strip()
    if found := _DECADE.fullmatch(bare):
        tens = 10 * int(found.group("tens"))
        if found.group("century"):
            return 100 * int(found.group("century")) + tens
        return 1900 + tens if tens >= 30 else None
    found = _DECADE_WORD.fullmatch(bare)
    return 1900 + _DECADES[found.group("word").casefold()] if found else None


def compare(answer: str, ground_truth: str, context: Context = STRICT) -> Grade | None:
    """Applies where the ground truth is a date or a decade.

    Says nothing of an answer that is no date, unless the truth is a decade: that is no number of seconds.
    """
    if _is_decade(ground_truth, context.question) and (decade := parse_decade(ground_truth)) is not None:
        given_decade = parse_decade(answer)
        return Grade.of(given_decade == decade, RULE, f"the {given_decade}s against the {decade}s")
    truth, given = parse_date(ground_truth, context.question), parse_date(answer, context.question)
    if truth is None or given is None:
        return None
    return Grade.of(given == truth, RULE, f"{given} against {truth}")


def _is_decade(ground_truth: str, question: str) -> bool:
    """True if "90s" may be a decade: not of a duration, and without its century only where a time is asked for."""
    if _DURATION.search(question):
        return False
    return re.search(r"\d{4}", ground_truth) is not None or _PERIOD.search(question) is not None


def _of_groups(groups: dict[str, str | None]) -> Date | None:
    month = groups.get("month") or ""
    if (groups.get("day") or "1").strip("0") == "":  # day 00: 0 stands for a day that is not given
        return None
    date = Date(
        int(groups.get("year") or 0), int(month) if month.isdigit() else _MONTH_OF[month], int(groups.get("day") or 0)
    )
    try:  # 2000, for a date without a year: it had a 29th of February
        day = datetime.date(date.year or 2000, date.month, date.day or 1)
    except ValueError:
        return None
    # a weekday must be that of its date, which only a year makes certain
    weekday = groups.get("weekday")
    if weekday and date.year and date.day and day.weekday() != _DAY_OF[weekday]:
        return None
    return date if not weekday or date.year else None


def _of_digits(found: re.Match[str], question: str) -> Date | None:
    """A date of digits, where its order is certain: one part is above 12, or the question says which is first."""
    first, second, year = int(found.group(1)), int(found.group(3)), found.group(4)
    month_first, day_first = _MONTH_FIRST.search(question), _DAY_FIRST.search(question)
    certain = year is not None and (first > 12 or second > 12 or first == second)
    if not (month_first or day_first or certain):
        return None
    if day_first is not None or first > 12:
        first, second = second, first
    return _of_groups({"year": year, "month": str(first), "day": str(second)})
