"""Matchers in order, from the most certain to the least; the first that applies gives the verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from codedance_verl.grading.context import STRICT, Context
from codedance_verl.grading.rules import (
    box,
    choice,
    count,
    dates,
    exact_text,
    expression,
    intervals,
    labels,
    number,
    ordinals,
    ranges,
    ratios,
    sequence,
    sizes,
    times,
    truth_text,
    yes_no,
)
from codedance_verl.grading.rules.alternatives import alternatives_of
from codedance_verl.grading.rules.normalise import strip_lead
from codedance_verl.grading.rules.other_forms import other_forms
from codedance_verl.types import Grade, Verdict

# Takes answer, ground truth and context; returns a verdict, or None where the rule does not apply.
Matcher = Callable[[str, str, Context], Grade | None]

Matchers = tuple[Matcher, ...]

# Of a record of style `rule` or `model`. The order counts: what reads only its own form ("10:30 AM") comes before what
# reads more ("10" with a unit), and a label ("B12") before the number and the formula that it could be.
MATCHERS: Matchers = (
    *(exact_text.compare, choice.compare, yes_no.compare, box.compare, sizes.compare, ordinals.compare),
    *(dates.compare, ratios.compare, times.compare, labels.compare, ranges.compare, intervals.compare),
    *(number.compare, sequence.compare, expression.compare),
)

RULE, MODEL, JUDGE = "rule", "model", "judge"

# Matchers by `reward_model.style` of a record. `rule` (also for none) never asks a judge; `model` asks it about what
# no matcher decides, `judge` about everything that is not the same text; the others allow one kind of comparison only.
STYLES: Mapping[str, Matchers] = MappingProxyType(
    {
        RULE: MATCHERS,
        MODEL: MATCHERS,
        JUDGE: (exact_text.compare,),
        exact_text.RULE: (exact_text.compare,),
        choice.RULE: (exact_text.compare, choice.compare_options),
        yes_no.RULE: (exact_text.compare, yes_no.compare),
        number.RULE: (exact_text.compare, number.compare, expression.compare),
        count.RULE: (count.compare,),
        box.RULE: (box.compare_boxes,),
        sequence.SET_RULE: (exact_text.compare, sequence.compare_sets),
        sequence.LIST_RULE: (exact_text.compare, sequence.compare_lists),
        expression.RULE: (exact_text.compare, number.compare, expression.compare_formulas),
    }
)

ASKS_JUDGE = frozenset({MODEL, JUDGE})

# An answer of this many characters or more is wrong, as in the published code: it states no single answer.
MAX_ANSWER_CHARS = 1_000

# Equal to no answer, and read by no matcher: its verdict shows whether any applies to the truth.
_NOTHING_LIKE_IT = "\N{REPLACEMENT CHARACTER}"


def grade(answer: str | None, ground_truth: str, style: str = RULE, context: Context = STRICT) -> Grade:
    """Grades the text between the answer tags (None: there were none) by rule against the record's ground truth.

    An answer that names several possibilities is wrong. `UNGRADED` without a ground truth, where the truth is not of
    the kind that `style` names, and where a formula could not be compared in time.

    Raises:
        KeyError: `style` is none of `STYLES`.
    """
    found = grade_by_rules(answer, ground_truth, style, context)
    if found is not None:
        return found
    if style in ASKS_JUDGE or style in (RULE, exact_text.RULE):
        return Grade(Verdict.WRONG, "text", "no rule finds them equal")
    return Grade(Verdict.UNGRADED, style, f"the ground truth is no {style}")


def grade_by_rules(answer: str | None, ground_truth: str, style: str = RULE, context: Context = STRICT) -> Grade | None:
    """Verdict as of `grade`, but None where no matcher applies: the question is open."""
    if not ground_truth.strip():
        return Grade(Verdict.UNGRADED, "no_ground_truth")
    if answer is None or not answer.strip():
        return Grade(Verdict.WRONG, "no_answer")
    if len(answer) >= MAX_ANSWER_CHARS:
        return Grade(Verdict.WRONG, "too_long", f"{len(answer)} characters")
    return _grade_alternatives(strip_lead(answer), ground_truth, STYLES[style], context)


def is_open(ground_truth: str, style: str, question: str = "") -> bool:
    """True if a judge must grade an answer that is not the very text."""
    if style not in ASKS_JUDGE:
        return False
    return _grade_alternatives(_NOTHING_LIKE_IT, ground_truth, STYLES[style], Context(question=question)) is None


def _grade_alternatives(answer: str, ground_truth: str, matchers: Matchers, context: Context) -> Grade | None:
    """Verdict against alternatives: correct by any of them, else open or ungraded where it is so by one."""
    found: list[Grade | None] = []
    for truth in alternatives_of(ground_truth):
        grade = _grade_items(answer, strip_lead(truth_text.unmarked(truth)), matchers, context)
        if grade is not None and grade.correct:
            return grade
        found.append(grade)
    return min(found, key=lambda grade: 0 if grade is None else 1 if grade.verdict is Verdict.UNGRADED else 2)


def _grade_items(answer: str, truth: str, matchers: Matchers, context: Context) -> Grade | None:
    """Verdict against a truth that may be the text of a Python list: all its items, or any where each is an answer."""
    items = truth_text.list_of(truth) if matchers is MATCHERS else None
    if items is None:
        return _grade_one(answer, truth, matchers, context)
    together = truth_text.compare_items(answer, items, context) if len(items) > 1 else None
    if (together is not None and together.correct) or not truth_text.alternatives_in(items, context.question):
        return together
    found = [_grade_one(answer, item, matchers, context) for item in items]
    return next((grade for grade in found if grade is not None and grade.correct), None if None in found else found[0])


def _grade_one(answer: str, ground_truth: str, matchers: Matchers, context: Context) -> Grade | None:
    """Verdict of the first matcher that has one; correct also where another form of the answer is."""
    verdict = _first_verdict(answer, ground_truth, matchers, context)
    if matchers is not MATCHERS or (verdict is not None and verdict.verdict is not Verdict.WRONG):
        return verdict
    for other, truth in other_forms(answer, ground_truth, context.question):
        found = _first_verdict(other, truth, matchers, context)
        if found is not None and found.correct:
            return found
    return verdict


def _first_verdict(answer: str, ground_truth: str, matchers: Matchers, context: Context) -> Grade | None:
    for matcher in matchers:
        if (verdict := matcher(answer, ground_truth, context)) is not None:
            return verdict
    return None
