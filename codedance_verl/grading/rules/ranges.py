"""Matcher: a range of numbers ("2010-2014", "5 to 10", "20-30%", "between 5 and 10", "65+")."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from codedance_verl.grading.context import STRICT, Context
from codedance_verl.grading.rules.latex import to_plain
from codedance_verl.grading.rules.normalise import ascii_digits, strip_wrapping
from codedance_verl.grading.rules.number import Quantity, agree, parse_quantity
from codedance_verl.types import Grade

RULE = "range"

# A longer text is no range.
MAX_CHARS = 100

_LEAD = re.compile(r"(?:from|between|in|the|range|years?|ages?|aged|period|of)\s+", re.IGNORECASE)
_BETWEEN = re.compile(
    r"\s*(?:-|\N{EM DASH}|~|\N{WAVE DASH}|\N{FULLWIDTH TILDE}|到|至|\bto\b|\bthrough\b|\bthru\b|\buntil\b|\btill\b)\s*",
    re.I,
)
_AND = re.compile(r"\s+and\s+", re.IGNORECASE)
_AND_MORE = re.compile(
    r"(?P<bound>.*?\d[^\s+]*)(?:\s*\+(?:\s*years?)?|(?:\s+years?)?(?:\s+old)?\s*(?:and|or)\s+"
    r"(?:over|older|above|more|up|higher|greater))",
    re.IGNORECASE,
)
# an end begins with a number, a sign or a currency, or is a number in words
_SIDE = re.compile(r"[-+$\N{EURO SIGN}\N{POUND SIGN}\N{YEN SIGN}]?\s?\.?\d|[^\W\d_]+(?:[\s-][^\W\d_]+){0,3}")


@dataclass(frozen=True)
class Range:
    """A range with its two ends in order, or without an upper end."""

    low: Quantity
    high: Quantity | None


def parse_range(text: str, question: str = "") -> Range | None:
    """Reads a range, whose lower end comes first; None for anything else."""
    if len(text) > MAX_CHARS:
        return None
    bare = strip_wrapping(ascii_digits(to_plain(text)).replace("--", "-"))
    if found := _AND_MORE.fullmatch(bare):
        low = _end(found.group("bound"), question)
        return Range(low, None) if low is not None else None
    between = re.match(r"between\s", bare, re.IGNORECASE) is not None
    for _ in range(3):
        bare = bare[found.end() :] if (found := _LEAD.match(bare)) else bare
    parts = (_AND if between else _BETWEEN).split(bare)
    if len(parts) != 2 or ("-" in bare and not all(re.search(r"\d", part) for part in parts)):
        return None
    return _of_ends(parts[0], parts[1], question)


def compare(answer: str, ground_truth: str, context: Context = STRICT) -> Grade | None:
    """Applies where the ground truth is a range. Says nothing, short of equality, of an answer that is none."""
    truth, given = parse_range(ground_truth, context.question), parse_range(answer, context.question)
    if truth is None or given is None:
        return None
    # the ends of a range are categories, such as those of an axis: no tolerance
    exact = replace(context, relative_tolerance=0.0)
    if given.high is None or truth.high is None:
        same = given.high is truth.high
    else:
        same = agree(given.high, truth.high, exact)
    same = same and agree(given.low, truth.low, exact)
    return Grade.of(same, RULE, f"{answer[:80]!r} against {ground_truth[:80]!r}")


def _of_ends(first: str, second: str, question: str) -> Range | None:
    low, high = _end(first, question), _end(second, question)
    if low is None or high is None:
        return None
    if re.fullmatch(r"\d{4}", first.strip()) and re.fullmatch(r"\d{2}", second.strip()):  # 2010-14
        high = replace(high, value=low.value - low.value % 100 + high.value)
    # "5-10 cm": a unit or a word behind one end is that of both
    low = replace(low, unit=low.unit or high.unit, words=low.words or high.words)
    high = replace(high, unit=high.unit or low.unit, words=high.words or low.words)
    if low.unit is not None and high.unit is not None and low.unit.dimension != high.unit.dimension:
        return None
    factors = [end.unit.factor if end.unit is not None else 1 for end in (low, high)]
    return Range(low, high) if low.value * factors[0] < high.value * factors[1] else None


def _end(text: str, question: str) -> Quantity | None:
    """A plain number with at most a unit; the end of a range is no fraction and has no name."""
    if not _SIDE.match(text.strip()) or "/" in text.replace("/h", "").replace("/s", ""):
        return None
    found = parse_quantity(text.strip(), question)
    return found if found is not None and not found.name else None
