"""Letters of options: those that a reply names by the rule of VLMEvalKit, and by one that reads sentences."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from codedance_verl.grading.rules.normalise import normalise
from codedance_verl.grading.rules.options import parse_choice

REJECTED = "Z"
"""Stands for "none of the options"."""

_MARKS = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
_ANSWER_IS = re.compile(r"answer\s+is\s+\**([A-D])", re.IGNORECASE)
# texts by which VLMEvalKit sees that a model has refused
_REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
# The letter of an option is one of the last words of the reply, at most this far from its end.
_LAST_WORDS = 4

# A capital letter that stands alone; "A" in front of a noun is an article.
_CAPITAL = r"(A(?!\s+(?!(?:and|because|but|is|nor|or)\b)[a-z])|[B-Z])(?![\w'-])"
_STATED = re.compile(
    rf"\b(?i:answer|option|choice)(?:\s+is)?\s*:?\s*(?:(?:the\s+)?(?:option|choice)\s+)?\**\s*(?:\(([A-Z])\)|{_CAPITAL})"
    r"(?!\s*(?:or\b|/))"
)
_BRACKETED = re.compile(r"[(\[]([A-Z])[)\]]")
_ALONE = re.compile(rf"(?<![\w'(\[-]){_CAPITAL}")

MAX_SENTENCE_CHARS = 4_000
"""Characters of a reply, its blanks taken as one each, that are read for a sentence, at most: the last ones."""


def lettered(choices: Sequence[str]) -> dict[str, str]:
    """Options by their letters from A on."""
    return {chr(ord("A") + place): text for place, text in enumerate(choices)}


def letter_as_vlmevalkit(reply: str, choices: Mapping[str, str]) -> str:
    """Letter that VLMEvalKit infers from a reply without a judge: one of the options, `REJECTED`, or empty for none.

    One letter alone among the words, near the end; else the letter behind "answer is", of either case; else the one
    option whose text is in the reply, unless the reply is much longer than all options.
    """
    if any(refusal in reply for refusal in _REFUSALS):
        return REJECTED
    words = reply.translate(_MARKS).split()
    named = [letter for letter in choices if letter in words]
    if len(named) == 1 and words.index(named[0]) >= len(words) - _LAST_WORDS:
        return named[0]
    if not named and REJECTED in words:
        return REJECTED
    found = _ANSWER_IS.search(reply)
    if found and found.group(1).upper() in choices:
        return found.group(1).upper()
    return _only_text(reply.lower(), {letter: text.lower() for letter, text in choices.items()})


def _only_text(reply: str, choices: Mapping[str, str]) -> str:
    if len(reply) > 2 * sum(map(len, choices.values())):
        return ""
    inside = [letter for letter, text in choices.items() if text in reply]
    return inside[0] if len(inside) == 1 else ""


def letter_in_sentence(reply: str, choices: Mapping[str, str]) -> str:
    """Letter of the one option that a reply names; empty where it names none, or several.

    In this order: the reply is the option (`grading/rules/options.py`), and not with the text of another one; the last
    "answer", "option" or "choice" that states one; the one letter in brackets; the one option whose text is in the
    reply; the one capital letter that stands alone and is no article. Of a long reply the last `MAX_SENTENCE_CHARS`
    count.
    """
    reply = " ".join(reply.split())[-MAX_SENTENCE_CHARS:]
    if (choice := parse_choice(reply, dict(choices))) is not None:
        others = {normalise(text) for letter, text in choices.items() if letter != choice.letter}
        return choice.letter if choice.letter in choices and choice.text not in others else ""
    stated = [first or second for first, second in _STATED.findall(reply)]
    # the last statement: those before it may weigh other options
    for letters in (stated[-1:], _BRACKETED.findall(reply), _texts_in(reply, choices), _ALONE.findall(reply)):
        named = {letter for letter in letters if letter in choices}
        if named:
            return named.pop() if len(named) == 1 else ""
    return ""


def _texts_in(reply: str, choices: Mapping[str, str]) -> list[str]:
    """Letters of the options whose texts are in the reply as words, those within another found text aside."""
    bare = {letter: " ".join(text.split()).strip(".").lower() for letter, text in choices.items()}
    inside = [letter for letter, text in bare.items() if text and _has_words(reply.lower(), text)]
    return [
        letter
        for letter in inside
        # options of equal text both stay, so that neither is named
        if not any(bare[letter] != bare[other] and bare[letter] in bare[other] for other in inside)
    ]


def _has_words(reply: str, text: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(text)}(?!\w)", reply) is not None
