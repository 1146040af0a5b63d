"""Answers that look wrong before any model has seen them, and how often each is right by data source."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from codedance_verl.audit.question_match import normalised
from codedance_verl.grading.rules.alternatives import alternatives_of

EXAMPLES = 5
"""Records that are named for each fault, at most."""

LONG_ANSWER = 300
"""Characters beyond which an answer is a text rather than an answer."""

_MOST_FREQUENT = 5
_OPTIONS = re.compile(r"(?<![^\W_])[(\[]?([A-H])[.):\]]")  # marks of options within a question
_LETTER = re.compile(r"\(?([A-H])\)?\.?")
_CHOICE = re.compile(r"\b(?:or|choices?|options?|choose|select|between)\b", re.IGNORECASE)
_YES_NO = frozenset(("yes", "no", "true", "false"))
_NUMBER = r"[-+]?\d[\d,]*(?:\.\d+)?"
_INTERVAL = re.compile(r"[\[(][^\[\]()]*[\])]")  # half open, such as [0, 1)
_WITH_WORDS = re.compile(rf"{_NUMBER}\s*[A-Za-z]{{4,}}")
_FORMS: Mapping[str, re.Pattern[str]] = {
    "blanks around it": re.compile(r"\A\s|\s\Z"),
    "several lines": re.compile(r"\n"),
    "tags in it": re.compile(r"</?[A-Za-z_]+>"),
    "a full stop behind a number": re.compile(rf"\A{_NUMBER}\.\Z"),
    "a thousands separator": re.compile(r"\A[-+]?\d{1,3}(?:,\d{3})+(?:\.\d+)?\Z"),
    "a percent sign with a blank": re.compile(r"\d\s+%"),
    "a box of LaTeX": re.compile(r"\\boxed"),
    "a word behind the number": re.compile(rf"\A{_WITH_WORDS.pattern}\Z"),
}


@dataclass(frozen=True)
class Lint:
    """Fault of answers: how many records have it, and the first of them."""

    fault: str
    records: int
    examples: tuple[str, ...]


@dataclass(frozen=True)
class Balance:
    """Answers of a data source: records, different answers, the most frequent ones with their counts, and how often
    each letter is right among the records whose answer is one."""

    data_source: str
    records: int
    answers: int
    most_frequent: tuple[tuple[str, int], ...]
    letters: Mapping[str, int]


class AnswerLint:
    """Collector of faults and counts over the records of a training set."""

    def __init__(self) -> None:
        self._faults: dict[str, list[str]] = defaultdict(list)
        self._counts: Counter[str] = Counter()
        self._answers: dict[str, Counter[str]] = defaultdict(Counter)
        self._letters: dict[str, Counter[str]] = defaultdict(Counter)
        self._seen: dict[int, int] = {}  # hashes of question and images, and of the answer

    def add(self, where: str, data_source: str, question: str, truth: str, images: Sequence[int] | None) -> None:
        """Adds a record.

        Args:
            where: file and row.
            data_source: where it comes from.
            question: as it is asked.
            truth: of the canonical row.
            images: numbers of its images; None where not all could be read, and it is compared with no other.
        """
        answers = alternatives_of(truth)
        for fault in dict.fromkeys(found for answer in answers for found in answer_faults(question, answer)):
            self._note(fault, where)
        if images is not None and (fault := self._contradiction(question, truth, images)):
            self._note(fault, where)
        shown = _shown(answers[0])
        self._answers[data_source][shown] += 1
        if letter := _LETTER.fullmatch(shown):
            self._letters[data_source][letter.group(1)] += 1

    def _note(self, fault: str, where: str) -> None:
        self._counts[fault] += 1
        if len(self._faults[fault]) < EXAMPLES:
            self._faults[fault].append(where)

    def _contradiction(self, question: str, truth: str, images: Sequence[int]) -> str:
        key, answer = hash((normalised(question).text, tuple(images))), hash(truth)
        contradicts = self._seen.setdefault(key, answer) != answer
        return "question and images of a record before, with another answer" if contradicts else ""

    def found(self) -> tuple[Lint, ...]:
        """Faults, the most frequent first."""
        return tuple(Lint(fault, count, tuple(self._faults[fault])) for fault, count in self._counts.most_common())

    def balance(self) -> tuple[Balance, ...]:
        """Balance of each data source, by name."""
        return tuple(
            Balance(
                name,
                answers.total(),
                len(answers),
                tuple(answers.most_common(_MOST_FREQUENT)),
                dict(sorted(self._letters[name].items())),
            )
            for name, answers in sorted(self._answers.items())
        )


def answer_faults(question: str, answer: str) -> Iterator[str]:
    """Oddities of one answer, in words."""
    if not answer.strip():
        yield "empty"
        return
    yield from (name for name, form in _FORMS.items() if form.search(answer))
    if len(answer) > LONG_ANSWER:
        yield f"more than {LONG_ANSWER} characters"
    uneven = any(answer.count(opening) != answer.count(closing) for opening, closing in ("()", "[]", "{}"))
    if uneven and not _INTERVAL.fullmatch(answer.strip()):
        yield "brackets that do not close"
    options = set(_OPTIONS.findall(question))
    letter = _LETTER.fullmatch(answer.strip())
    if letter and len(options) > 1 and letter.group(1) not in options:
        yield "a letter that is none of the options"
    if not letter and _stands_in(question, answer) and len(options) < 2:
        yield "stands in the question"


def _stands_in(question: str, answer: str) -> bool:
    """True if the words of an answer are in the question, which offers no choice; short numbers are there by chance."""
    inside = normalised(answer).text
    if not inside or inside in _YES_NO or _CHOICE.search(question) or (inside.isdigit() and len(inside) < 3):
        return False
    return f" {inside} " in f" {normalised(question).text} "


def _shown(answer: str) -> str:
    return " ".join(answer.split())[:60]
