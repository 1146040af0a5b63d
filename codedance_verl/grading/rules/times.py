"""Matcher: times of day ("10:30 AM", "10:30am", "22:30", "half past ten", "3 o'clock")."""

from __future__ import annotations

import re
from dataclasses import dataclass

from codedance_verl.grading.context import STRICT, Context
from codedance_verl.grading.rules.normalise import bare_text
from codedance_verl.grading.rules.numerals import parse_words
from codedance_verl.types import Grade

RULE = "time"

# A longer text is no time of day.
MAX_CHARS = 40

# am or pm, with or without points
_HALF = r"(?:\s*(?P<half>[ap])\.?\s?m\.?)"
_CLOCK = re.compile(rf"(?P<hour>\d{{1,2}})\s?:\s?(?P<minute>\d{{2}})(?:\s?:\s?(?P<second>\d{{2}}))?{_HALF}?")
_DOTTED = re.compile(rf"(?P<hour>\d{{1,2}})\.(?P<minute>\d{{2}}){_HALF}")
_FULL_HOUR = re.compile(rf"(?P<hour>\d{{1,2}}){_HALF}")
_O_CLOCK = re.compile(rf"(?P<hour>\w+)\s?o\s?'?\s?clock{_HALF}?")
_PAST = re.compile(
    rf"(?:a\s+)?(?P<part>half|quarter|[\w-]+?)(?:\s+minutes?)?\s+(?P<way>past|after|to|before)\s+(?P<hour>\w+){_HALF}?"
)
_HAN_HALVES = {"上午": "a", "下午": "p"}
_HAN = re.compile(r"(?P<half>上午|下午)?\s?(?P<hour>\d{1,2})\s?[点點时]\s?(?:(?P<minute>\d{1,2})\s?分?)?")
_FORMS = (_O_CLOCK, _HAN, _CLOCK, _DOTTED, _FULL_HOUR)
_NAMED = {"noon": ("p", 12), "midday": ("p", 12), "midnight": ("a", 12)}


@dataclass(frozen=True)
class Time:
    """A time of day; `half` is "a" or "p", or empty where it is not given. Hours are 0 to 23, with a half 0 to 11."""

    hour: int
    minute: int = 0
    second: int = 0
    half: str = ""


def parse_time(text: str) -> Time | None:
    """Reads a time of day; None for anything else, such as 25:00."""
    if len(text) > MAX_CHARS:
        return None
    bare = bare_text(text).casefold().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    bare = re.sub(r"^(?:at|it's|it is)\s+", "", bare)
    if bare in _NAMED:
        half, twelve = _NAMED[bare]
        return _time(twelve, 0, 0, half)
    if found := _PAST.fullmatch(bare):
        return _relative(found)
    found = next((match for form in _FORMS if (match := form.fullmatch(bare))), None)
    hour = _number(found.group("hour")) if found else None
    if found is None or hour is None or (found.re is _O_CLOCK and not 1 <= hour <= 12):
        return None
    groups = found.groupdict(default="")
    minute, second = (int(groups.get(name) or 0) for name in ("minute", "second"))
    return _time(hour, minute, second, _HAN_HALVES.get(groups["half"], groups["half"]))


def compare(answer: str, ground_truth: str, context: Context = STRICT) -> Grade | None:
    """Applies where both are times of day.

    The half of the day may be missing on neither side alone, unless the hours of 24 say it.
    """
    truth, given = parse_time(ground_truth), parse_time(answer)
    if truth is None or given is None:
        return None
    return Grade.of(_same(given, truth), RULE, f"{given} against {truth}")


def _same(given: Time, truth: Time) -> bool:
    if given == truth:
        return True
    if bool(given.half) == bool(truth.half):
        return False
    stated, bare = (given, truth) if given.half else (truth, given)
    day = Time(stated.hour + (12 if stated.half == "p" else 0), stated.minute, stated.second)
    return day == bare and (bare.hour > 12 or bare.hour == 0)


def _time(hour: int, minute: int, second: int, half: str) -> Time | None:
    if minute > 59 or second > 59 or hour > 23 or (half and not 1 <= hour <= 12):
        return None
    return Time(hour % 12 if half else hour, minute, second, half)


def _relative(found: re.Match[str]) -> Time | None:
    """ "half past ten", "twenty to five", "a quarter to three pm"."""
    hour, part = _number(found.group("hour")), found.group("part")
    minutes = {"half": 30, "quarter": 15}.get(part, _number(part))
    if hour is None or minutes is None or not 1 <= hour <= 12 or not 0 < minutes < 60:
        return None
    if found.group("way") in ("past", "after"):
        return _time(hour, minutes, 0, found.group("half") or "")
    if part == "half" or (found.group("half") and hour == 12):
        return None
    return _time(hour - 1 or 12, 60 - minutes, 0, found.group("half") or "")


def _number(text: str) -> int | None:
    return int(text) if text.isdigit() else parse_words(text)
