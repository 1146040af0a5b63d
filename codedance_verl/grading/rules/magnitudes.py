"""Thousands, millions and billions, behind a number ("350K", "1.2M", "3.5 bn") or in a question ("in millions")."""

from __future__ import annotations

import math
import re

from codedance_verl.grading import question_kind as asks
from codedance_verl.grading.rules.numerals import SCALES

_WORDS = {**SCALES, "hundred": 100}
_WORD = re.compile(rf"\s*({'|'.join(_WORDS)})s?\b\s*", re.IGNORECASE)
_HAN = re.compile(r"\s?([百千万萬亿億]{1,2})")
_HAN_VALUES = {"百": 10**2, "千": 10**3, "万": 10**4, "萬": 10**4, "亿": 10**8, "億": 10**8}
_ABBREVIATED = re.compile(r"(\s?)(K|k|M|B|T|bn|Bn|BN|mn|Mn|mln|mio|tn|m)(?=\s|$|[$\N{EURO SIGN}\N{POUND SIGN}])\s*")
_POWERS = {"k": 3, "m": 6, "b": 9, "t": 12, "bn": 9, "mn": 6, "mln": 6, "mio": 6, "tn": 12}
# then B is a byte, and no billion
_BYTES = re.compile(r"\b(?:bytes?|file|memory|storage|disk|bits?)\b", re.IGNORECASE)
_ASKED = re.compile(
    rf"\bin\s+(?:the\s+)?(?:[^\W\d_]+\s+|[$\N{{EURO SIGN}}\N{{POUND SIGN}}]\s?)?({'|'.join(SCALES)})s?\b"
    rf"|\bhow\s+many\s+({'|'.join(SCALES)})s?\b"
    rf"|\((?:[^()]{{0,30}}[\s$\N{{EURO SIGN}}\N{{POUND SIGN}}])?({'|'.join(SCALES)})s?(?:\s[^()]{{0,30}})?\)",
    re.IGNORECASE,
)


def split_scale(rest: str, question: str, money: bool) -> tuple[int, str]:
    """Scale of the number before `rest`, and what of `rest` is left.

    A letter alone is a scale only where it can be no unit: K beside its digits is a thousand but for a temperature, B a
    thousand million but for a size in bytes, m a million only of money.
    """
    if found := _WORD.match(rest):
        return _WORDS[found.group(1).casefold()], rest[found.end() :]
    if found := _HAN.match(rest):
        return math.prod(_HAN_VALUES[char] for char in found.group(1)), rest[found.end() :]
    found = _ABBREVIATED.match(rest)
    if found is None or not _is_scale(found.group(2), bool(found.group(1)), question, money):
        return 1, rest
    left = rest[found.end() :]
    return 10 ** _POWERS[found.group(2).casefold()], f" {left}" if left else ""


def asked_scale(question: str) -> int:
    """Scale in which a question wants its number ("in millions", "(thousands of dollars)"); 1 without one."""
    found = _ASKED.search(question[:4_000])
    return SCALES[next(group for group in found.groups() if group).casefold()] if found else 1


def _is_scale(letters: str, spaced: bool, question: str, money: bool) -> bool:
    # "$3 m" is money, and bn, mn, mln, mio and tn are no units
    if money or letters.casefold() in ("bn", "mn", "mln", "mio", "tn"):
        return True
    counted = asks.asks_count(question)
    if letters == "K":
        return not asks.asks_temperature(question) and (counted or not spaced)
    if letters == "B":
        return not _BYTES.search(question) and (counted or not spaced)
    return letters == "M" or (letters == "k" and not spaced)
