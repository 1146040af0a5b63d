"""Numbers written in words: English, and Chinese or Japanese numerals, below a trillion."""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction

_SMALL = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    *("ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
# Number words below a hundred that stand alone.
VALUE_OF_WORD = {word: value for value, word in enumerate(_SMALL)} | {
    word: 10 * place for place, word in enumerate(_TENS, start=2)
}

SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "lakh": 10**5, "crore": 10**7}
_NUMERAL_WORDS = frozenset({*VALUE_OF_WORD, *SCALES, "hundred", "dozen", "half", "quarter", "pair", "couple"})
_HAN_DIGITS = dict(zip("〇一二三四五六七八九", range(10), strict=True)) | {"零": 0, "两": 2, "兩": 2}
_HAN_PLACES = {"十": 10, "百": 100, "千": 1000}
_HAN_SCALES = {"万": 10**4, "萬": 10**4, "亿": 10**8, "億": 10**8}
_MAX_HAN = 20
# Characters of a Chinese or Japanese numeral.
HAN_NUMERALS = "".join((*_HAN_DIGITS, *_HAN_PLACES, *_HAN_SCALES))


def is_numeral_word(word: str) -> bool:
    """True if a word says how many, so that it cannot be the name of what was counted."""
    return word.casefold() in _NUMERAL_WORDS


def parse_words(text: str) -> int | None:
    """Value of a number in words ("one hundred and five", "twenty-one", "a dozen"), else None."""
    words = [word for word in re.split(r"[\s-]+", text.strip().casefold()) if word]
    if words in (["dozen"], ["a", "dozen"]):
        return 12
    if len(words) == 2 and words[1] == "hundred" and re.fullmatch(r"[1-9]\d?", words[0]):
        return int(words[0]) * 100
    if len(words) == 2 and words[0] == "a" and (words[1] in SCALES or words[1] == "hundred"):
        words[0] = "one"
    if not words or not all(word in VALUE_OF_WORD or word in SCALES or word in ("hundred", "and") for word in words):
        return _parse_han(text.strip())
    return _parse_english(words)


def _parse_english(words: list[str]) -> int | None:
    """Sum from the left. Two values in a row that do not belong together ("three four") are no number."""
    total, group, last = 0, 0, None
    ceiling = 10**15  # each scale once, and smaller than the one before: "two thousand million" is no number
    for word in words:
        if word == "and":
            if last not in ("hundred", "scale"):
                return None
            last = "and"
        elif word in VALUE_OF_WORD:
            value = VALUE_OF_WORD[word]
            if last == "small" or (last == "tens" and not 0 < value < 10) or (last == "scale" and value == 0):
                return None
            group, last = group + value, "tens" if value >= 20 else "small"
        elif word == "hundred":
            if last not in ("small", "tens") or not 0 < group < 100:
                return None
            group, last = group * 100, "hundred"
        else:
            if group == 0 or last == "and" or SCALES[word] >= ceiling:
                return None
            ceiling = SCALES[word]
            total, group, last = total + group * SCALES[word], 0, "scale"
    return None if last == "and" else total + group


def _parse_han(text: str) -> int | None:
    """Value of "三" (3), "十二" (12), "二百零五" (205), "三万五千" (35000); each place once, from the highest."""
    if not 0 < len(text) <= _MAX_HAN or any(char not in HAN_NUMERALS for char in text):
        return None
    # sections of at most four places, each closed by a scale of ten thousand or a hundred million
    total, section, ceiling = 0, "", 10**12
    for char in text:
        if char not in _HAN_SCALES:
            section += char
            continue
        value = _han_section(section)
        if not value or _HAN_SCALES[char] >= ceiling:
            return None
        total, section, ceiling = total + value * _HAN_SCALES[char], "", _HAN_SCALES[char]
    rest = _han_section(section) if section else 0
    return None if rest is None or (total and section and section[0] in "十") else total + rest


def _han_section(text: str) -> int | None:
    """A numeral below ten thousand."""
    total, digit, ceiling = 0, None, 10**4
    for place, char in enumerate(text):
        if char in _HAN_PLACES:
            if _HAN_PLACES[char] >= ceiling or digit == 0 or (digit is None and (char != "十" or place)):
                return None
            total, digit, ceiling = total + (digit or 1) * _HAN_PLACES[char], None, _HAN_PLACES[char]
        elif digit is not None and digit != 0:
            return None
        else:
            digit = _HAN_DIGITS[char]
            if digit == 0 and place and place == len(text) - 1:
                return None
    return total + (digit or 0) if text else None


_PARTS = {"half": 2, "halves": 2, "third": 3, "thirds": 3, "quarter": 4, "quarters": 4, "fifth": 5, "fifths": 5}


def parse_parts(text: str) -> Fraction | None:
    """Value of a fraction in words ("half", "one third", "three quarters"), else None."""
    words = [word for word in re.split(r"[\s-]+", text.strip().casefold()) if word]
    if not words or words[-1] not in _PARTS or len(words) > 2:
        return None
    top = 1 if words[:-1] in ([], ["a"]) else VALUE_OF_WORD.get(words[0])
    return Fraction(top, _PARTS[words[-1]]) if top is not None else None


def may_be_ordinal(text: str) -> bool:
    """True if a fraction in words may be a place in an order or a coin as well ("third", "a quarter")."""
    words = re.split(r"[\s-]+", text.strip().casefold())
    return words[-1] in ("third", "quarter", "fifth") and words[:-1] in ([], ["a"], ["the"])


def spell_out_fractions(text: str) -> str:
    """Text with fractions of one character as plain ones: "2½" becomes "2 1/2"."""
    return "".join(_spelled_out(char, before) for before, char in zip(f" {text}", text, strict=False))


def _spelled_out(char: str, before: str) -> str:
    if unicodedata.category(char) != "No" or "FRACTION" not in unicodedata.name(char, ""):
        return char
    written = unicodedata.normalize("NFKC", char).replace("\N{FRACTION SLASH}", "/")
    return f" {written}" if before.isdigit() else written
