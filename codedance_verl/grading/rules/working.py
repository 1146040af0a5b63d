"""Working in front of a result ("52 - 25 = 27"): one equation of plain numbers, evaluated exactly."""

from __future__ import annotations

import re
from fractions import Fraction

from codedance_verl.grading.rules.normalise import bare_text

# Bounds of one side of an equation: characters, numbers and signs, nested brackets. Beyond them it is none.
MAX_CHARS = 200
MAX_TOKENS = 60
MAX_DEPTH = 8

_NUMBER = r"(?:\d{1,3}(?:,\d{3}){1,4}|\d{1,15})(?:\.\d{1,15})?"
_TOKEN = re.compile(rf"\s*({_NUMBER}|[-+*/()])\s*")
_LEADING = re.compile(rf"\s*([-+]?)\s*[$\N{{EURO SIGN}}\N{{POUND SIGN}}]?\s*({_NUMBER})(?![\d.,/^*]\S)")
# an equation within a reason, of at most ten terms without brackets
_INSIDE = re.compile(rf"(?<![\w.])({_NUMBER}(?:\s?[-+*/]\s?{_NUMBER}){{1,9}})\s?=\s?(-?{_NUMBER})")
_SIGNS = (
    (re.compile(r"\\(?:times|cdot)(?![A-Za-z])|[\N{MULTIPLICATION SIGN}\N{MIDDLE DOT}\N{DOT OPERATOR}]"), "*"),
    (re.compile(r"\\div(?![A-Za-z])|\N{DIVISION SIGN}"), "/"),
)
_ASKS_EQUATION = re.compile(
    r"\b(?:equations?|expressions?|formulas?|formulae|number\s+sentences?|calculations?|identit(?:y|ies)|written|writes?"
    r"|says?|reads?|show\w*\s+(?:the|your)\s+work\w*|solve\s+for|missing)\b|=",
    re.IGNORECASE,
)


def result_of(answer: str, ground_truth: str, question: str) -> str | None:
    """Right side of a true equation of plain numbers, with what stands behind it.

    None for anything else, and where the ground truth is an equation or the question asks for one.
    """
    if "=" in ground_truth or _ASKS_EQUATION.search(question[:4_000]) or len(answer) > MAX_CHARS:
        return None
    sides = _plain(bare_text(answer)).split("=")
    if len(sides) != 2:
        return None
    found = _LEADING.match(sides[1])
    if found is None or re.match(r"\s*[-+*/^(.,:\d]", sides[1][found.end() :]):
        return None
    # at least one operation: "27 = 27" shows no working
    if not re.search(r"\d\s*\)*\s*[-+*/]", sides[0]):
        return None
    right = Fraction(found.group(2).replace(",", "")) * (-1 if found.group(1) == "-" else 1)
    return sides[1].strip() if evaluate(sides[0]) == right else None


def equations_hold(text: str) -> bool:
    """True if every equation of plain numbers within a text is true."""
    equations = _INSIDE.findall(_plain(text[:1_000]))
    return all(evaluate(left) == Fraction(right.replace(",", "")) for left, right in equations)


def evaluate(text: str) -> Fraction | None:
    """Exact value of sums, differences, products and quotients of plain numbers; None for anything else."""
    if len(text) > MAX_CHARS:
        return None
    tokens = _TOKEN.findall(text)[::-1]
    # a character that belongs to no token is passed over, and then missing
    if len(tokens) > MAX_TOKENS or sum(map(len, tokens)) != len("".join(text.split())):
        return None
    value = _sum(tokens, 0)
    return value if not tokens else None


def _plain(text: str) -> str:
    for pattern, sign in _SIGNS:
        text = pattern.sub(sign, text)
    return text


def _sum(tokens: list[str], depth: int) -> Fraction | None:
    """Takes a sum of terms off the end of the reversed tokens: recursive descent, products within sums."""
    total = _product(tokens, depth)
    while total is not None and tokens and tokens[-1] in "+-":
        sign = tokens.pop()
        term = _product(tokens, depth)
        total = None if term is None else total + term if sign == "+" else total - term
    return total


def _product(tokens: list[str], depth: int) -> Fraction | None:
    total = _factor(tokens, depth)
    while total is not None and tokens and tokens[-1] in "*/":
        sign = tokens.pop()
        factor = _factor(tokens, depth)
        if factor is None or (sign == "/" and factor == 0):
            return None
        total = total * factor if sign == "*" else total / factor
    return total


def _factor(tokens: list[str], depth: int) -> Fraction | None:
    token = tokens.pop() if tokens else ""
    if token == "-" and tokens and tokens[-1] not in "+-":
        value = _factor(tokens, depth)
        return None if value is None else -value
    if token == "(" and depth < MAX_DEPTH:
        value = _sum(tokens, depth + 1)
        return value if tokens and tokens.pop() == ")" else None
    return Fraction(token.replace(",", "")) if token[:1].isdigit() else None
