"""Forms of one result of algebra: two solutions for one with both signs, letters of a product in another order."""

from __future__ import annotations

import re

from codedance_verl.grading.question_kind import asks_code, asks_written
from codedance_verl.grading.rules.latex import to_plain
from codedance_verl.grading.rules.normalise import strip_wrapping

# A longer text is compared as it stands.
MAX_CHARS = 120

_BOTH_SIGNS = re.compile(
    r"(?:(?P<name>[A-Za-z])\s*=\s*)?(?:\N{PLUS-MINUS SIGN}|\\pm(?![A-Za-z])|\+/?-)\s*(?P<value>\S.*)"
)
_ASKS_SOLUTIONS = re.compile(
    r"\b(?:solutions?|solve[sd]?|roots?|zeros|zeroes|satisf\w+|values?\s+of|(?:what|find)\s+(?:is\s+)?\$?[a-z]\b)",
    re.IGNORECASE,
)
_BETWEEN = re.compile(r"\s*(?:[,;]\s*(?:or\b|and\b)?|\bor\b|\band\b)\s*", re.IGNORECASE)
# the name of a solution, with an index: "x = ", "x_1 = "
_ASSIGNED = re.compile(r"([A-Za-z])(?:_\{?\d\}?|[\u2080-\u2089])?\s*=\s*")
_ASKS_FORMULA = re.compile(r"\b(?:in\s+terms\s+of|formulas?|formulae|expressions?|express)\b", re.IGNORECASE)
_TIMES = r"(?:[*\N{MIDDLE DOT}\N{DOT OPERATOR}\N{MULTIPLICATION SIGN}]|\\cdot|\\times)"
# at most five single letters: a longer run is a word
_LETTERS_ONLY = re.compile(rf"[A-Za-z](?:\s*(?:{_TIMES}\s*)?[A-Za-z]){{1,4}}")


def both_solutions(answer: str, ground_truth: str, question: str) -> tuple[str, str] | None:
    """Solutions as a list, and the set that one with both signs stands for ("x = 4 or x = -4", "{4, -4}")."""
    if max(len(answer), len(ground_truth)) > MAX_CHARS or not _ASKS_SOLUTIONS.search(question[:4_000]):
        return None
    truth = _BOTH_SIGNS.fullmatch(strip_wrapping(ground_truth.strip().strip("$")))
    # one value behind the sign: "\\pm 2, 3" is a list
    if truth is None or _BETWEEN.search(truth.group("value")):
        return None
    parts = _BETWEEN.split(strip_wrapping(to_plain(answer)))
    # both solutions of one name, which the truth or the question has: "a = 4 or b = -4" is no pair of solutions
    names = [found.group(1) if (found := _ASSIGNED.match(part)) else "" for part in parts]
    known = {"", truth.group("name") or "", *re.findall(r"(?<![^\W\d_])[A-Za-z](?![^\W\d_])", question)}
    if len(parts) != 2 or len(set(names) - {""}) > 1 or not set(names) <= known:
        return None
    values = [strip_wrapping(_ASSIGNED.sub("", part, count=1)).replace("\N{MINUS SIGN}", "-") for part in parts]
    value = to_plain(truth.group("value"))
    return ", ".join(values), f"{{{value}, -{value}}}"


def product_of_letters(answer: str, ground_truth: str, question: str) -> tuple[str, str] | None:
    """Answer and truth with their letters sorted, where a formula in letters of the question is asked for."""
    if not _ASKS_FORMULA.search(question[:4_000]) or asks_code(question) or asks_written(question):
        return None
    given, truth = (re.sub(r"^\$|\$$", "", text[:MAX_CHARS].strip().rstrip(".")) for text in (answer, ground_truth))
    if not (_LETTERS_ONLY.fullmatch(given) and _LETTERS_ONLY.fullmatch(truth)):
        return None
    left, right = (sorted(re.sub(r"\\[a-z]+|[^A-Za-z]", "", text)) for text in (given, truth))
    known = set(re.findall(r"(?<![^\W\d_])[A-Za-z](?![^\W\d_])", question))
    return ("".join(left), "".join(right)) if {*left, *right} <= known else None
