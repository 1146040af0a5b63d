"""Matcher: sizes of several sides ("1920x1080", "10 cm by 20 cm"): as many numbers, in order, never multiplied."""

from __future__ import annotations

import re

from codedance_verl.grading.context import STRICT, Context
from codedance_verl.grading.rules.latex import to_plain
from codedance_verl.grading.rules.normalise import ascii_digits, strip_wrapping, words_of
from codedance_verl.grading.rules.number import Quantity, parse_quantity
from codedance_verl.grading.rules.units import names_unit
from codedance_verl.types import Grade

RULE = "size"

# A longer text is no size.
MAX_CHARS = 80

_CROSS = r"[xX\N{MULTIPLICATION SIGN}\N{MULTIPLICATION X}\N{VECTOR OR CROSS PRODUCT}]"
_BETWEEN = re.compile(rf"\s*(?:{_CROSS}|\bby\b)\s*(?=\.?\d)")
# only in an answer: "3*4" as a truth is a product
_BETWEEN_OF_ANSWER = re.compile(rf"\s*(?:{_CROSS}|\*|\bby\b)\s*(?=\.?\d)")
_ROWS = re.compile(r"(\d+)\s+rows?(?:,|\s+and|\s+by|\s*[x\N{MULTIPLICATION SIGN}])?\s+(\d+)\s+columns?", re.IGNORECASE)
_SIDES_WORDS = "row column pixel px wide high tall long deep grid matrix in size width height"
_SIDES = frozenset(_SIDES_WORDS.split())


# Two or three sides in order, with the unit that stands behind each or behind the last.
Sides = tuple[Quantity, ...]


def parse_size(text: str, question: str = "", between: re.Pattern[str] = _BETWEEN) -> Sides | None:
    """Reads a size; None for anything else, also for a longer product ("3x4y") and for a power of ten."""
    if len(text) > MAX_CHARS:
        return None
    plain = re.sub(r"\\times(?![A-Za-z])", "\N{MULTIPLICATION SIGN}", ascii_digits(to_plain(text)))
    bare = strip_wrapping(plain).removeprefix("a ").strip()
    if rows := _ROWS.fullmatch(bare):
        bare = f"{rows.group(1)} x {rows.group(2)}"
    parts = between.split(bare)
    if not 2 <= len(parts) <= 3 or re.fullmatch(r"10\s?\^.*", parts[-1]):
        return None
    sides = [side for part in parts if (side := _side(part, question)) is not None]
    if len(sides) < len(parts):
        return None
    return tuple(Quantity(side.value, side.unit or sides[-1].unit) for side in sides)


def compare(answer: str, ground_truth: str, context: Context = STRICT) -> Grade | None:
    """Applies where the ground truth is a size; an answer that is another, or none, is then wrong."""
    truth = parse_size(ground_truth, context.question)
    if truth is None:
        return None
    given = parse_size(answer, context.question, _BETWEEN_OF_ANSWER)
    same = given is not None and len(given) == len(truth) and all(map(_same, given, truth, [context.question] * 3))
    return Grade.of(same, RULE, f"{_show(given)} against {_show(truth)}")


def _side(text: str, question: str) -> Quantity | None:
    """One side: a number, with a unit or words that say which side it is."""
    if not re.match(r"[\d.]", text.strip()) or "/" in text:
        return None
    side = parse_quantity(text.strip(), question)
    if side is None or side.value <= 0 or not set(side.words) <= {*_SIDES, *words_of(question)}:
        return None
    return side


def _same(given: Quantity, truth: Quantity, question: str) -> bool:
    if given.unit is not None and truth.unit is not None:
        same = given.unit.dimension == truth.unit.dimension
        return same and given.value * given.unit.factor == truth.value * truth.unit.factor
    extra = given.unit or truth.unit
    return given.value == truth.value and (extra is None or names_unit(question, extra))


def _show(sides: Sides | None) -> str:
    return "no size" if sides is None else " x ".join(f"{float(side.value):g}" for side in sides)
