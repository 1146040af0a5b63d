"""Matcher: the letter of a multiple choice question, alone or with the text of the option ("(B)", "B.", "B. red").

Where several options are right ("A, C"), the same letters in any order. The options are read from the question where it
lists them, so that the text of an option answers as well as its letter, and a letter with another's text does not; a
value is compared as it would be without options ("0.5" for "(A) 1/2"). "A. Lincoln" and the blood type AB are options
only where the question offers some, or where the record says so.
"""

from __future__ import annotations

import re
from dataclasses import replace

from codedance_verl.grading.context import STRICT, Context
from codedance_verl.grading.rules import exact_text, expression, number
from codedance_verl.grading.rules.normalise import bare_text, normalise
from codedance_verl.grading.rules.options import (
    Choice,
    is_run_of_letters,
    options_of,
    parse_choice,
    parse_letters,
    text_behind,
)
from codedance_verl.types import Grade

RULE = "choice"

# Options whose texts are compared as formulas: each may take the whole time of a comparison.
MAX_FORMULAS = 10

_REASON = re.compile(r"(?:because|since|as|due\s+to)\s", re.IGNORECASE)
# "A. Lincoln" is a name
_INITIAL = re.compile(r"[A-H]\.\s*[^\W\d_]")
_OFFER = re.compile(r"\b(?:options?|choices?)\b", re.IGNORECASE)
_FIRST_TWO = tuple(re.compile(rf"(?:^|[\s(\[*]){letter}[.):\]*]", re.IGNORECASE) for letter in "AB")


def compare(answer: str, ground_truth: str, context: Context = STRICT) -> Grade | None:
    """Applies where the ground truth is an option, and the question does not speak against that.

    Where the truth is the text of an option that the question lists, its letter is right as well.
    """
    if not _is_option(ground_truth, context.question):
        return None
    grade = compare_options(answer, ground_truth, context)
    return grade if grade is not None else _letter_of_text(answer, ground_truth, context)


def compare_options(answer: str, ground_truth: str, context: Context = STRICT) -> Grade | None:
    """Compares as `compare`, whatever the question. Where both give the text of the option, that must agree as well."""
    options = options_of(context.question)
    if (several := parse_letters(ground_truth, options)) is not None:
        given_letters = parse_letters(answer, options)
        if given_letters is None and is_run_of_letters(ground_truth):
            return None
        return Grade.of(given_letters == several, RULE, f"options {_show(given_letters)} against {_show(several)}")
    truth = parse_choice(ground_truth, options)
    if truth is None:
        return None
    # without a letter the answer may give the text of the option, or the value of that one alone
    right_text = truth.text or normalise(options.get(truth.letter, ""))
    given = parse_choice(answer, options or {truth.letter: truth.text})
    if given is None:
        same = bool(right_text) and right_text in (normalise(answer), text_behind(truth.letter, answer, options))
        same = same or _is_value_of(truth, answer, options, context)
        return Grade.of(same, RULE, f"{normalise(answer)!r} against option {truth.letter} {right_text!r}")
    return Grade.of(_same(given, truth, options, context), RULE, f"option {given.letter} against {truth.letter}")


def _is_option(ground_truth: str, question: str) -> bool:
    """True if a letter with words behind it, or a run of letters, is an option and no name, or abbreviation."""
    if _offers(question):
        return True
    bare = bare_text(ground_truth)
    return not _INITIAL.match(bare) and not (question and "&" in bare) and not (question and is_run_of_letters(bare))


def _offers(question: str) -> bool:
    """True if a question speaks of options, or has the marks of a first and, behind it, of a second one."""
    first = _FIRST_TWO[0].search(question)
    return bool(_OFFER.search(question) or (first and _FIRST_TWO[1].search(question, first.end())))


def _is_value_of(truth: Choice, answer: str, options: dict[str, str], context: Context) -> bool:
    """True if an answer without a letter is the value of the right option, and of no other one."""
    texts = options or {truth.letter: truth.text}
    text = texts.get(truth.letter, "")
    if not text or len(texts) > MAX_FORMULAS + 16:
        return False
    # options are no part of the question here: their words and units would allow those of a wrong one
    plain = replace(context, question=_without_options(context.question, options))
    others = (other for letter, other in texts.items() if letter != truth.letter)
    return _equal(answer, text, plain, len(texts)) and not any(
        _equal(answer, other, plain, len(texts)) for other in others
    )


def _equal(answer: str, text: str, context: Context, options: int) -> bool:
    rules = (exact_text.compare, number.compare, expression.compare)
    for rule in rules if options <= MAX_FORMULAS else rules[:2]:
        if (grade := rule(answer, text, context)) is not None:
            return grade.correct
    return False


def _without_options(question: str, options: dict[str, str]) -> str:
    """Question up to its first option: what options say is nothing that an answer may add."""
    first = question.find(next(iter(options.values()))) if options else -1
    return question[:first] if first > 0 else question


def _letter_of_text(answer: str, ground_truth: str, context: Context) -> Grade | None:
    """Grade of a letter where the truth is the text of one option; None for an answer that names none."""
    options = options_of(context.question)
    text = normalise(ground_truth)
    letters = [letter for letter, option in options.items() if normalise(option) == text]
    given = parse_choice(answer, options) if len(letters) == 1 else None
    if given is None:
        return None
    same = _same(given, Choice(letters[0]), options, context)
    return Grade.of(same, RULE, f"option {given.letter} against {letters[0]}")


def _same(given: Choice, truth: Choice, options: dict[str, str], context: Context) -> bool:
    if given.letter != truth.letter:
        return False
    right = truth.text or options.get(truth.letter, "")
    if not given.text or not right:
        return True
    text = normalise(right)
    if given.text == text or _REASON.match(given.text.removeprefix(text).strip()):
        return True
    return _equal(given.text, right, replace(context, question=""), 1)


def _show(letters: frozenset[str] | None) -> str:
    return "none" if letters is None else ", ".join(sorted(letters))
