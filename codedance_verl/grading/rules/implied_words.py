"""Words behind a number that the question's own word implies: a population is of people."""

from __future__ import annotations

import re

from codedance_verl.grading.rules.normalise import word_set

_COUNTED = {
    "population": word_set("people persons inhabitants residents"),
    "attendance": word_set("people attendees visitors spectators"),
    "enrollment": word_set("students pupils"),
    "enrolment": word_set("students pupils"),
    "workforce": word_set("people workers employees"),
    "headcount": word_set("people employees"),
    "membership": word_set("members people"),
    "readership": word_set("readers people"),
    "turnout": word_set("voters people"),
}
_OF_PEOPLE = "total|estimated|current|human|urban|rural|overall|approximate|reported"
_BEFORE = rf"(?:(?:{_OF_PEOPLE}|[A-Z][\w.]*(?:['\u2019]s)?|[a-z]+['\u2019]s)\s+){{0,4}}"
# what has a population of people; "the population of bacteria" has none
_PLACE = (
    r"(?:[a-z]+\s+)?(?:town|city|country|village|state|county|region|district|province|world|island|municipality|area|school"
    r"|university|company|nation|continent|capital|event|game|match|club)\b|[A-Z]"
)
_ASKED = re.compile(
    r"\b(?:[Ww]hat(?:['\u2019]s|\s+(?:is|was|were|are))|[Hh]ow\s+(?:large|big|high)\s+(?:is|was)|[Ff]ind|[Gg]ive|[Ss]tate)"
    rf"\s+(?:the\s+)?{_BEFORE}(?P<word>{'|'.join(_COUNTED)})\b"
    r"(?!\s+(?:density|growth|rate|change|increase|decrease|share|rank))"
    rf"(?!\s+of\s+(?!(?:the\s+|this\s+|that\s+)?(?:{_PLACE})))"
)
# shares, rates and scaled counts are no number of people
_NO_COUNT = re.compile(
    r"%|\b(?:percent\w*|share|proportion|fraction|ratio|density|growth|rate|rank\w*|thousands?|millions?|billions?|year\s+did"
    r"|per|difference|average|change)\b",
    re.IGNORECASE,
)


def implied_words(question: str) -> frozenset[str]:
    """Words for what is counted where the question asks for a population, an attendance or the like, not for a part."""
    found = _ASKED.search(question[:2_000])
    if found is None or _NO_COUNT.search(question[:2_000]):
        return frozenset()
    return _COUNTED[found.group("word")]
