"""Matcher: sizes of several sides ("1920x1080", "10 cm by 20 cm"): as many numbers, in order, never multiplied."""

from __future__ import annotations

import re
from dataclasses import dataclass

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
_SIDES_WORDS = """
    row column pixel px wide high tall long deep grid matrix in size width height
"""
_SIDES = frozenset(_SIDES_WORDS.split())


@dataclass(frozen=True)
class Size:
    """Two or three sides in order, with the unit that stands behind each or behind the last."""

    sides: tuple[Quantity, ...]


def parse_size(text: str, question: str = "", between: re.Pattern[str] = _BETWEEN) -> Size | None:
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
    sides = [_side(part, question) for part in parts]
    if any(side is None for side in sides):
        return None
    known = [side for side in sides if side is not None]
    return Size(tuple(Quantity(side.value, side.unit or known[-1].unit) for side in known))


def compare(answer: str, ground_truth: str, context: Context = STRICT) -> Grade | None:
    """Applies where the ground truth is a size; an answer that is another, or none, is then wrong."""
    truth = parse_size(ground_truth, context.question)
    if truth is None:
        return None
    given = parse_size(answer, context.question, _BETWEEN_OF_ANSWER)
    same = given is not None and len(given.sides) == len(truth.sides)
    same = same and given is not None and all(map(_same, given.sides, truth.sides, [context.question] * 3))
    evidence = f"{_show(given)} against {_show(truth)}"
    return Grade.of(same, RULE, evidence)


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


def _show(size: Size | None) -> str:
    return "no size" if size is None else " x ".join(f"{float(side.value):g}" for side in size.sides)
