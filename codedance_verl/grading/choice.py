"""Rung: the letter of a multiple choice question, alone or with the text of the option ("(B)", "B.", "B. red")."""

from __future__ import annotations

import re
from dataclasses import dataclass

from codedance_verl.grading.normalise import normalise, strip_wrapping
from codedance_verl.types import Grade, Verdict

RUNG = "choice"

_LETTER = re.compile(r"\(?([A-Ha-h])\)?")
_LETTER_AND_TEXT = re.compile(r"(?:\(([A-H])\)|([A-H])[.):])\s*(\S.*)", re.DOTALL)
_SECOND_LETTER = re.compile(r"\([A-H]\)|\b[A-H][.):]|(?:\bor\b|\band\b|\bnot\b|[/,;&|])\s*\(?[A-H]\b", re.DOTALL)


@dataclass(frozen=True)
class Choice:
    """An option: its upper-case letter, and its normalised text where it was given."""

    letter: str
    text: str = ""


def parse_choice(text: str) -> Choice | None:
    """Read one option; None for anything else, also for an answer that names several."""
    bare = strip_wrapping(text.strip())
    if alone := _LETTER.fullmatch(bare):
        return Choice(alone.group(1).upper())
    found = _LETTER_AND_TEXT.fullmatch(text.strip())
    if found is None or _LETTER.fullmatch(strip_wrapping(found.group(3))) or _SECOND_LETTER.search(found.group(3)):
        return None
    return Choice(found.group(1) or found.group(2), normalise(found.group(3)))


def compare(answer: str, ground_truth: str) -> Grade | None:
    """Applies where the ground truth is an option. Where both give its text, that must agree as well."""
    truth = parse_choice(ground_truth)
    if truth is None:
        return None
    given = parse_choice(answer)
    if given is None:
        same = bool(truth.text) and normalise(answer) == truth.text
        return _grade(same, f"{normalise(answer)!r} against option {truth.letter} {truth.text!r}")
    same = given.letter == truth.letter and (not given.text or not truth.text or given.text == truth.text)
    return _grade(same, f"option {given.letter} against {truth.letter}")


def _grade(same: bool, evidence: str) -> Grade:
    return Grade(Verdict.CORRECT if same else Verdict.WRONG, RUNG, evidence)
