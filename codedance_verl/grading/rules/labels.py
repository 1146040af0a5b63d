"""Matcher: labels, which name a thing by letters and digits ("B12", "AB12 CDE", "F-16", "007", "H2O", section "1.20").

Every character counts, in its order: a label is no product of its letters, no unit and no number. Only a space or a
hyphen between a letter and a digit may be missing, and words of the question may stand around it ("Gate B12").
"""

from __future__ import annotations

import re

from codedance_verl.grading import question_kind as asks
from codedance_verl.grading.context import STRICT, Context
from codedance_verl.grading.rules.chemistry import chemical_formula
from codedance_verl.grading.rules.normalise import bare_text
from codedance_verl.grading.rules.number import parse_quantity
from codedance_verl.grading.rules.numerals import parse_words
from codedance_verl.grading.rules.times import parse_time
from codedance_verl.grading.rules.units import names_unit
from codedance_verl.types import Grade

RULE = "label"

# A longer text is no label.
MAX_CHARS = 60

# runs of letters and digits with one sign between them
_CODE = re.compile(r"[^\W_]+(?:[\s.:_-][^\W_]+|\s?/\s?[^\W_]+)*")
_SLASHED = re.compile(r"(\d+)\s*/\s*(\d+)")
_SCORE = re.compile(r"(\d+)\s*(?:[-/:]|to)\s*(\d+)")
# quarters, halves and fiscal years: dates, or texts
_DATED = re.compile(r"(?:Q[1-4]|H[12]|FY)\s?'?\d{2,4}|\d{4}\s?(?:Q[1-4]|H[12])")
_NUMBER_SIGN = re.compile(r"(?:(?:no\.?|nr\.?|number)\s+|(?:no|nr)\.|\N{NUMERO SIGN}|N[º°]\.?|#)\s*(?=\w*\d)", re.I)
_PHONE = re.compile(r"\+?[\d(][\d\s().-]{5,25}\d")
_AREA_CODE = re.compile(r"\(\d{3}\)\s?\d{3}[-.\s]\d{4}|\d{3}-\d{3}-\d{4}")
_ASKS_PHONE = re.compile(r"\b(?:tele)?phone|电话|\bfax\b", re.IGNORECASE)
_ASKS_NUMBER = re.compile(r"\bnumber\b|\bno\.|[#\N{NUMERO SIGN}]|\bnr\b", re.IGNORECASE)
_COEFFICIENT = re.compile(r"-?\d+(?:\.\d+)?\s?[A-Za-z]{1,3}")
_TERM = r"(?:\d+(?:\.\d+)?\s?[A-Za-z]{0,2}|[A-Za-z]{1,2})"
_SHIFTED = re.compile(rf"-?{_TERM}(?:\s?[-/]\s?{_TERM}){{1,4}}")
# between a letter and a digit a blank or a hyphen may be missing: "B 12", "F-16"
_BESIDE = re.compile(r"(?<=[^\W\d_])[\s-]+(?=\d)|(?<=\d)[\s-]+(?=[^\W\d_])")
_GROUPING = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
# with a short word it is a sentence, a range or a time
_WORDS = frozenset({"to", "or", "of", "in", "at", "by", "on", "is", "am", "pm"})
_SMALL_WORDS = frozenset({"the", "says"})


def is_label(text: str, question: str = "") -> bool:
    """True if a ground truth is a label, by its form, or else by what the question asks for."""
    bare = _bare(text, question)
    if _is_phone(bare, question):
        return True
    if len(bare) > MAX_CHARS or not any(char.isdigit() for char in bare):
        return False
    numbered = _NUMBER_SIGN.match(bare)
    if numbered and _CODE.fullmatch(bare[numbered.end() :]):
        return True
    if chemical_formula(bare) and not (_CODE.fullmatch(bare) and bare.isascii()):
        return not asks.asks_formula(question) or sum(char.isupper() for char in bare) > 1
    if not _CODE.fullmatch(bare) or _DATED.fullmatch(bare) or parse_time(bare) is not None:
        return False
    letters = re.findall(r"[^\W\d_]+", bare)
    if not letters:
        return _is_code_of_digits(bare, question)
    if any(run in _WORDS or (len(run) > 2 and not run.isupper()) or not run.isascii() for run in letters):
        return False
    return not _is_quantity(bare, question) and not _is_formula(bare, question)


def compare(answer: str, ground_truth: str, context: Context = STRICT) -> Grade | None:
    """Applies where the ground truth is a label; an answer that is another is then wrong."""
    if not is_label(ground_truth, context.question):
        return None
    left, right = (_canonical(text, context.question) for text in (answer, ground_truth))
    if asks.asks_place(context.question) and right.isupper() and (left.islower() or left.isupper()):
        left = left.upper()
    return Grade.of(left == right, RULE, f"{left!r} against {right!r}"[:200])


def _bare(text: str, question: str) -> str:
    """Text without LaTeX, and without words of the question on either side of it."""
    bare = bare_text(text[:500])
    words = bare.split()
    while len(words) > 1 and _is_of_question(words[0], question):
        words.pop(0)
    while len(words) > 1 and _is_of_question(words[-1], question):
        words.pop()
    return " ".join(words)


def _is_of_question(word: str, question: str) -> bool:
    bare = word.strip(".,:;").casefold()
    return bare.isalpha() and len(bare) > 2 and bare in {*_SMALL_WORDS, *re.findall(r"\w+", question.casefold())}


def _is_phone(text: str, question: str) -> bool:
    """True for a telephone number, whose digits alone count."""
    return bool(_AREA_CODE.fullmatch(text) or (_PHONE.fullmatch(text) and _ASKS_PHONE.search(question)))


def _is_code_of_digits(text: str, question: str) -> bool:
    """True if digits alone are a label: with zeros in front, or where the question asks for a code or a score."""
    if asks.asks_count(question):
        return False
    if slashed := _SLASHED.fullmatch(text):
        same = slashed.group(1) == slashed.group(2)
        return same or ((asks.asks_slashed(question) or asks.asks_code(question)) and not asks.asks_fraction(question))
    if asks.asks_score(question) and _SCORE.fullmatch(text):
        return True
    return asks.asks_code(question) or re.fullmatch(r"0\d+", text) is not None


def _is_quantity(text: str, question: str) -> bool:
    """True for a number, with a unit or a scale behind it, where the question asks for no code."""
    quantity = parse_quantity(text, question)
    if quantity is None or quantity.words:
        return False
    if asks.asks_reading(question) and not asks.asks_amount(question) and re.fullmatch(r"\d[A-Z]", text):
        return False  # "3M", "4K"
    named = quantity.unit is not None and names_unit(question, quantity.unit)
    return named or not (asks.asks_code(question) and not asks.asks_temperature(question))


def _is_formula(text: str, question: str) -> bool:
    """True if letters beside digits are a product or a difference: "6x", and "x2" in a question of mathematics.

    Elsewhere capitals are a label, and so is all of it where a code or something written is asked for.
    """
    formula = bool(_COEFFICIENT.fullmatch(text) or _SHIFTED.fullmatch(text))
    if asks.asks_formula(question):
        return formula or re.fullmatch(r"-?[a-z]\s?\d+", text) is not None
    return formula and text.islower() and not asks.asks_code(question) and not asks.asks_reading(question)


def _split_number_sign(text: str, question: str) -> tuple[str, str]:
    """Sign and number of "No. 5"; no sign where the question asks for a number.

    "no B12" keeps its word: it says that there is none.
    """
    found = _NUMBER_SIGN.match(text)
    asked = _ASKS_NUMBER.search(question) is not None
    if found is None or not (asked or text[found.end() :].isdigit()):
        return "", text
    return "" if asked and not found.group().strip().isalpha() else "#", text[found.end() :]


def _canonical(text: str, question: str) -> str:
    bare = _bare(text, question)
    if _is_phone(bare, question):
        return re.sub(r"[^\d+]", "", bare)
    if (formula := chemical_formula(bare)) is not None:
        return formula
    sign, bare = _split_number_sign(bare, question)
    if (score := _SCORE.fullmatch(bare)) and asks.asks_score(question):
        return "-".join(score.groups())
    value = parse_words(bare)
    spelled = str(value) if value is not None else bare
    return sign + re.sub(r"\s*([/.:])\s*", r"\1", _BESIDE.sub("", _GROUPING.sub("", spelled)))
