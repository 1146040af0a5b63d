"""Matcher: yes or no ("Yes", "true", "No, there is not"). Words behind it repeat the question, or explain."""

from __future__ import annotations

import re

from codedance_verl.grading.context import STRICT, Context
from codedance_verl.grading.explained import parse_explained, repeats_all, swaps_sides
from codedance_verl.grading.rules.normalise import bare_text, strip_wrapping, word_set, words_of
from codedance_verl.types import Grade

RULE = "yes_no"

_VALUES = {
    **dict.fromkeys(("yes", "true", "是", "是的", "对", "正确"), True),
    **dict.fromkeys(("no", "false", "否", "不是", "不", "错误"), False),
}
# of an answer only: a truth "N" may be newton or north
_INITIALS = {"y": True, "n": False}
_MORE = re.compile(r"(yes|no|true|false)(?:\s*[,.;:!\N{EM DASH}-]\s*|\s+)(\S.*)", re.IGNORECASE | re.DOTALL)
_SMALL_WORDS = word_set("""
    a an the it its this that these those there they he she is are was were do does did has have had can in on of
    to at so be
""")
_DENIALS = word_set("not isn aren wasn weren don doesn didn hasn haven cannot")
_TURNS = word_set("yes no true false or but maybe wrong right incorrect correct actually")


def parse_yes_no(text: str, question: str = "") -> bool | None:
    """Reads a yes or a no; None for anything else, also for a yes with a statement of its own behind it."""
    bare = bare_text(text)
    if bare.casefold() in _VALUES:
        return _VALUES[bare.casefold()]
    found = _MORE.fullmatch(bare)
    if found is None:
        return None
    value = _VALUES[found.group(1).casefold()]
    allowed = _SMALL_WORDS | (set(words_of(question)) - _TURNS)
    allowed |= {"t", *_DENIALS} if not value else set()
    rest = found.group(2)
    if not set(re.findall(r"\d+", rest)) <= set(re.findall(r"\d+", question)) or not words_of(rest):
        return None  # "No. 5" is a number
    # "yes" to a question with "not" in it may mean either
    unclear = value and _DENIALS & set(words_of(question))
    contradicts = swaps_sides if value else repeats_all
    return None if unclear or not set(words_of(rest)) <= allowed or contradicts(rest, question) else value


def compare(answer: str, ground_truth: str, context: Context = STRICT) -> Grade | None:
    """Applies where the ground truth is yes, no, true or false; an answer that is neither is then wrong."""
    truth = parse_yes_no(ground_truth)
    if truth is None:
        return None
    given = _INITIALS.get(strip_wrapping(answer).casefold(), parse_yes_no(answer, context.question))
    if given is None:
        given = parse_explained(bare_text(answer), context.question)
    return Grade.of(given is truth, RULE, f"{_show(given)} against {_show(truth)}")


def _show(value: bool | None) -> str:
    return "neither" if value is None else "yes" if value else "no"
