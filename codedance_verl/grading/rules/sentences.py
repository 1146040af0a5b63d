"""Full sentences that repeat the question ("The title of the document is ..."), and named points ("P(3, 5)")."""

from __future__ import annotations

import re

from codedance_verl.grading.question_kind import asks_written
from codedance_verl.grading.rules.normalise import singular, strip_wrapping, word_set, words_of

# A longer answer is no such sentence.
MAX_CHARS = 400

_VERB = re.compile(r"\s(?:is|are|was|were)(?:\s*:\s*|\s+)(?=\S)", re.IGNORECASE)
_SMALL_WORDS = word_set("""
    a an the it this that these those there answer of in on at to by for from with as has have had is are was were
    and which who
""")
# words of asking, which an answer does not repeat
_ASKING = word_set("what which who whose where when whom how does do did can you please")
_NEGATIONS = word_set("not no never none neither nor except without isn aren wasn weren doesn don didn")
# doubt, or a second answer, behind the verb
_TAKEN_BACK = re.compile(
    r"\A(?:not|never|no longer|neither|either|hardly|unlikely|maybe|perhaps|possibly|probably|unknown)\b"
    r"|\b(?:or|but|however|maybe|perhaps|actually|not)\b|\?",
    re.IGNORECASE,
)
# words that relate two things, whose order then counts
_RELATED = re.compile(r"\b(?:ratio|than|from|per|between|minus|over|divided|relative|compared|to)\b", re.IGNORECASE)
_POINT = re.compile(
    r"(?:the\s+)?(?:coordinates\s+of\s+)?(?:the\s+)?(?:point\s+)?(?P<name>[A-Z])\s*"
    r"(?:=|:|(?:is|are)(?:\s+(?:at|located\s+at))?|has\s+coordinates)?\s*(?P<rest>\([^()]{1,100}\))\s*\.?",
    re.IGNORECASE,
)
_ASKED_POINT = re.compile(
    r"\b(?:coordinates?|location|position)\s+of\s+(?:the\s+)?(?:point|vertex|midpoint|cent(?:er|re)|corner|origin)?\s*"
    r"\$?([A-Z])\b|\b(?:where\s+is|what\s+is|find|locate)\s+(?:the\s+)?point\s+\$?([A-Z])\b",
)


def bare_answer(answer: str, ground_truth: str, question: str) -> str | None:
    """Text behind "is" in a sentence whose beginning repeats the question; None where it does not.

    The beginning must be about what is asked for: its first word of weight is the one behind "what" or "which", or
    the subject. The letter of an option and what is written somewhere are never read from a sentence.
    """
    if len(answer) > MAX_CHARS or "\n" in answer.strip() or re.fullmatch("[A-Z]", strip_wrapping(ground_truth)):
        return None
    found = _VERB.search(answer)
    if found is None or asks_written(question):
        return None
    lead, rest = words_and_digits(answer[: found.start()]), answer[found.end() :].strip()
    asked = words_and_digits(question[:2_000])
    if not set(lead) <= set(asked) | _SMALL_WORDS or (_NEGATIONS & set(lead)) != (_NEGATIONS & set(asked)):
        return None
    weighty = [word for word in lead if word not in _SMALL_WORDS]
    if not weighty or weighty[0] not in _subjects(question) or not _in_order(answer[: found.start()], question):
        return None
    return None if _TAKEN_BACK.search(rest) and not _TAKEN_BACK.search(ground_truth) else rest


def bare_point(answer: str, ground_truth: str, question: str) -> str | None:
    """Coordinates in "P(3, 5)", "P = (3, 5)" or "Point P is (3, 5)", where the question asks for those of P."""
    if len(answer) > MAX_CHARS or not ground_truth.strip().strip("$").startswith(("(", "\\left(")):
        return None
    asked = {name for names in _ASKED_POINT.findall(_from_lower(question[:2_000])) for name in names if name}
    found = _POINT.fullmatch(answer.strip().strip("$").strip())
    return found.group("rest") if found and asked == {found.group("name")} else None


def words_and_digits(text: str) -> list[str]:
    """Words of a text, without plural endings, and its numbers."""
    return [*words_of(re.sub(r"['\u2019]s\b", "", text)), *re.findall(r"\d+", text)]


def _in_order(lead: str, question: str) -> bool:
    """True if names and numbers stand in the order of the question; all words where it relates two things.

    "The ratio of dogs to cats" does not repeat "What is the ratio of cats to dogs?".
    """
    related = _RELATED.search(question) is not None
    asked = re.findall(r"[^\W_]+", question[:2_000])
    names = {word.casefold() for word in asked[1:] if len(word) == 1 or not word.islower()}
    repeated = [word for word in re.findall(r"[^\W_]+", lead.casefold()) if word not in _SMALL_WORDS]
    rest = iter(singular(word.casefold()) for word in asked)
    return all(singular(word) in rest for word in repeated if related or word in names)


def _subjects(question: str) -> frozenset[str]:
    """Word of weight behind "what" or "which", with the one behind its verb ("What colour is the car?")."""
    found = re.search(r"\b(?:what|which|who)\b(?P<rest>[^?]{0,300})", question, re.IGNORECASE)
    if found is None:
        return frozenset()
    before, _, behind = re.sub(r"\s+(?:is|are|was|were)\s+", "\n", f" {found.group('rest')}", count=1).partition("\n")
    firsts = (next(iter(_weighty(part)), "") for part in (before, behind))
    return frozenset(firsts) - {""}


def _weighty(text: str) -> list[str]:
    return [word for word in words_of(text) if word not in _SMALL_WORDS | _ASKING]


def _from_lower(question: str) -> str:
    """Question with a small first letter, and those of its verbs, so that capitals are names."""
    return re.sub(
        r"\b(What|Where|Find|Locate|Coordinates?|Location|Position)\b", lambda word: word[0].lower(), question
    )
