"""Rung: the letter of a multiple choice question, alone or with the text of the option ("(B)", "B.", "B. red").

Where several options are right ("A, C"), the same letters in any order. The options are read from the question where it
lists them, so that the text of an option answers as well as its letter, and a letter with another's text does not.
"A. Lincoln" and the blood type AB are options only where the question offers some, or where the record says so.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from codedance_verl.grading.context import STRICT, Context
from codedance_verl.grading.latex import to_plain
from codedance_verl.grading.normalise import ascii_digits, normalise, strip_wrapping
from codedance_verl.types import Grade, Verdict

RUNG = "choice"

_LETTER = re.compile(r"\(?([A-Ha-h])\)?")
_LETTER_AND_TEXT = re.compile(r"(?:\(([A-H])\)|([A-H])[.):])\s*(\S.*)", re.DOTALL)
_BARE_LETTER = r"(?<!\S)(?:[B-H]|A(?!\s+[a-z]))(?=[\s,;.]|$)(?!\s*[-=<>+*/^])"  # no article, and not in a formula
_SECOND_LETTER = re.compile(
    r"\([A-H]\)|\b[A-H][.):]|(?:\b(?:or|and|not|but|unless|maybe|then|perhaps|else)\b|[/,;&|])\s*\(?[A-H]\b"
    rf"|\A{_BARE_LETTER}|{_BARE_LETTER}.*{_BARE_LETTER}",
    re.DOTALL,
)
_LETTERS = re.compile(r"\(?[A-H]\)?(?:(?:\s*[,;&/]\s*(?:and\s+)?|\s+and\s+)\(?[A-H]\)?)+")
_RUN_OF_LETTERS = re.compile(r"[A-H]{2,8}")
_INITIAL = re.compile(r"[A-H]\.\s*[^\W\d_]")
_OFFER = re.compile(r"\b(?:options?|choices?)\b|(?:^|[\s(\[*])A[.):\]*].*[\s(\[*]B[.):\]*]", re.IGNORECASE | re.DOTALL)
_LEAD = re.compile(
    r"(?:the\s+)?(?:correct\s+|right\s+)?(?:option|choice|letter)s?(?:\s+is)?\s*:?\s*(?=\(?[A-Ha-h]\b)", re.IGNORECASE
)
_OPTION = re.compile(r"(?:^|[\s(])\(?([A-H])[.):]\s*(.+?)(?=\s*(?:\n|[\s(;,]\(?[A-H][.):]\s)|\s*$)", re.DOTALL)


@dataclass(frozen=True)
class Choice:
    """An option: its upper-case letter, and its normalised text where it was given."""

    letter: str
    text: str = ""


def parse_choice(text: str) -> Choice | None:
    """Read one option; None for anything else, also for an answer that names several."""
    plain = to_plain(ascii_digits(text)).strip()
    plain = plain[found.end() :] if (found := _LEAD.match(plain)) else plain
    if alone := _LETTER.fullmatch(strip_wrapping(plain)):
        return Choice(alone.group(1).upper())
    found = _LETTER_AND_TEXT.fullmatch(plain)
    if found is None or _LETTER.fullmatch(strip_wrapping(found.group(3))) or _SECOND_LETTER.search(found.group(3)):
        return None
    return Choice(found.group(1) or found.group(2), normalise(found.group(3)))


def parse_letters(text: str) -> frozenset[str] | None:
    """Read several options by their letters ("A, C", "A and C", "AC" in alphabetical order); else None."""
    bare = strip_wrapping(to_plain(ascii_digits(text)))
    if _LETTERS.fullmatch(bare):
        return frozenset(re.findall(r"[A-H]", bare))
    if _RUN_OF_LETTERS.fullmatch(bare) and "".join(sorted(set(bare))) == bare:
        return frozenset(bare)
    return None


def options_of(question: str) -> dict[str, str]:
    """Normalised texts of the options that a question lists, by letter; empty where it lists none or the same twice."""
    found = _OPTION.findall(question)
    letters = [letter for letter, _ in found]
    if len(found) < 2 or letters != [chr(ord("A") + place) for place in range(len(found))]:
        return {}
    options = {letter: normalise(text) for letter, text in found}
    return options if len(set(options.values())) == len(options) else {}


def compare(answer: str, ground_truth: str, context: Context = STRICT) -> Grade | None:
    """Applies where the ground truth is an option, and the question does not speak against that."""
    return compare_options(answer, ground_truth, context) if _is_option(ground_truth, context.question) else None


def compare_options(answer: str, ground_truth: str, context: Context = STRICT) -> Grade | None:
    """As `compare`, whatever the question. Where both give the text of the option, that must agree as well."""
    if (several := parse_letters(ground_truth)) is not None:
        given_letters = parse_letters(answer)
        return (
            None
            if given_letters is None and _RUN_OF_LETTERS.fullmatch(ground_truth.strip())
            else _grade(given_letters == several, f"options {_show(given_letters)} against {_show(several)}")
        )
    truth = parse_choice(ground_truth)
    if truth is None:
        return None
    options = options_of(context.question)
    right_text = truth.text or options.get(truth.letter, "")
    given = parse_choice(answer)
    if given is None:
        same = bool(right_text) and right_text in (normalise(answer), _text_behind(truth.letter, answer))
        return _grade(same, f"{normalise(answer)!r} against option {truth.letter} {right_text!r}")
    return _grade(_same(given, truth, options), f"option {given.letter} against {truth.letter}")


def _is_option(ground_truth: str, question: str) -> bool:
    """Whether a letter with words behind it, or a run of letters, is an option and no name, or abbreviation."""
    if _OFFER.search(question):
        return True
    bare = strip_wrapping(to_plain(ascii_digits(ground_truth)))
    return not _INITIAL.match(bare) and not (question and _RUN_OF_LETTERS.fullmatch(bare))


def _text_behind(letter: str, answer: str) -> str:
    """The normalised text behind that letter, which may name others ("B. A and C"); empty for anything else."""
    found = _LETTER_AND_TEXT.fullmatch(to_plain(ascii_digits(answer)).strip())
    return normalise(found.group(3)) if found and letter in found.group(1, 2) else ""


def _same(given: Choice, truth: Choice, options: dict[str, str]) -> bool:
    if given.letter != truth.letter:
        return False
    if given.text and truth.text and given.text != truth.text:
        return False
    return not any(given.text == text for letter, text in options.items() if letter != truth.letter)


def _show(letters: frozenset[str] | None) -> str:
    return "none" if letters is None else ", ".join(sorted(letters))


def _grade(same: bool, evidence: str) -> Grade:
    return Grade(Verdict.CORRECT if same else Verdict.WRONG, RUNG, evidence)
