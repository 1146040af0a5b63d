"""Names in front of a value ("AC = 5", "∠ABC is 35°"), held against what the question asks for."""

from __future__ import annotations

import re
from functools import lru_cache

# A longer beginning is no name.
MAX_LEAD = 60

_VERB = r"(?:=|\N{ALMOST EQUAL TO}|:|\bis\s+equal\s+to\b|\bequals\b|\bis\b|\bare\b|\bwas\b)"
_NAMED = re.compile(
    rf"(?P<lead>[^=:\N{{ALMOST EQUAL TO}}]{{1,{MAX_LEAD}}}?)\s*{_VERB}\s*(?=[^\s=])", re.IGNORECASE | re.DOTALL
)
_ANGLE = re.compile(r"\b[mM]?\s?(?:\N{ANGLE}|\\angle(?![A-Za-z])|\N{MEASURED ANGLE})\s*|\bm(?=\s*\N{ANGLE})")
# words that announce a value and name nothing
_GENERIC_WORDS = "the of value measure number total answer result it this that there its a an angle"
_GENERIC = frozenset(_GENERIC_WORDS.split())
_OF_NAMES = frozenset(["length", "size", "side", "segment", "degree"])
# what is worked out of several values: one of those values is no answer to it
_DERIVED = re.compile(
    r"\b(?:what\s+(?:is|was)|what's|find|calculate|compute|determine)\s+the\s+"
    r"(difference|sum|ratio|average|mean|median|product|quotient|range)\b",
    re.IGNORECASE,
)
# what is asked for: up to four capitals (a point, a side, an angle) or one letter
_TARGET = re.compile(
    r"\b(?:find|determine|calculate|compute|evaluate|what\s+is|what's|value\s+of|length\s+of|measure\s+of|size\s+of|"
    r"solve\s+for|get)\s+(?:the\s+)?(?:(?:value|length|measure|size)\s+of\s+)?(?:the\s+)?"
    r"(?:angle|segment|side|line|arc|variable|chord)?\s*\$?\s*(?P<name>[A-Z]{1,4}|[A-Za-z])(?:_\{?\w\}?)?(?!\w)",
)


def strip_name(text: str, question: str) -> str | None:
    """Value behind a name that repeats the question; None where the question asks for another name.

    The text itself where nothing, or something else, stands in front of a value.
    """
    found = _NAMED.match(text)
    if found is None or not question:
        return text
    # "2x + 3 = 7" has no name in front, unless the question has that very expression
    if re.search(r"[-+*/^<>]", found.group("lead")) and _squeezed(found.group("lead")) not in _squeezed(question):
        return text
    lead = _ANGLE.sub(" angle ", found.group("lead"))
    tokens = re.findall(r"[^\W_]+", lead)
    known = set(re.findall(r"[^\W_]+", question.casefold().replace("\\angle", " angle ")))
    names = [token for token in tokens if _is_name(token)]
    words = [token.casefold() for token in tokens if token not in names]
    asked = asked_names(question)
    spoken = known | _GENERIC | (_OF_NAMES if names and asked >= set(map(_as_one, names)) else frozenset())
    if not tokens or not all(word in spoken for word in words):
        return text
    if (derived := _DERIVED.search(question)) and set(words) - _GENERIC and derived.group(1).casefold() not in words:
        return None  # "The red bar is 7" is no difference of two bars
    if asked and names and not any(_as_one(name) in asked for name in names):
        return None
    if names and not asked and not all(name.casefold() in known or len(name) == 1 for name in names):
        return text
    return text[found.end() :]


@lru_cache(maxsize=256)
def asked_names(question: str) -> frozenset[str]:
    """Names of points, sides, angles and variables whose value a question asks for."""
    plain = " ".join(_ANGLE.sub(" angle ", question[:4_000]).replace("$", " ").split())
    # capitals of verbs are no names
    plain = re.sub(
        r"\b(Find|Determine|Calculate|Compute|Evaluate|What|Solve|Get)\b", lambda word: word[0].lower(), plain
    )
    return frozenset(_as_one(found.group("name")) for found in _TARGET.finditer(plain) if found.group("name") != "a")


def _is_name(token: str) -> bool:
    return token.isalpha() and ((token.isupper() and len(token) <= 4) or (len(token) == 1 and token != "a"))


def _squeezed(text: str) -> str:
    return re.sub(r"[\s$\\{}]", "", text)


def _as_one(name: str) -> str:
    """Alphabetic spelling of a side or an angle, which both ends may begin: "CA" is AC, "CBA" is ABC."""
    return min(name, name[::-1])
