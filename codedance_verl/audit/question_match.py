"""Questions in common: equal after normalisation, sharing most runs of four words, or nearly the same letters.

An inverted index of word 4-grams finds candidates among all evaluation questions. It is exact, unlike MinHash, which
misses every second question of which one word was changed. A comparison of the pair decides.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from rapidfuzz import fuzz

from codedance_verl.types import IMAGE_PLACEHOLDER

LEAST_RATIO = 90.0
"""Percent of equal letters (`rapidfuzz.fuzz.ratio`) from which questions count as one."""

LEAST_SHARE = 0.8
"""Share of the 4-grams of the shorter question from which questions count as one: it may stand within the longer."""

MAX_QUESTION_WORDS = 400
"""Words of a question that are compared, at most: the first ones."""

_RUN = 4
_LEAST_RUNS = 3  # of the shorter question: two runs in common are a figure of speech
_COMMON = 50  # evaluation questions with a run from which it leads to no candidates: it is part of an instruction
_WORD = re.compile(r"[^\W_]+")

Runs = frozenset[tuple[str, ...]]


class Likeness(StrEnum):
    """Way in which two questions are alike, the strongest first."""

    EQUAL = "equal"
    RUNS = "4-grams"
    RATIO = "ratio"


@dataclass(frozen=True)
class Normalised:
    """Question without case, punctuation and placeholders, its words separated by blanks, and its runs of words."""

    text: str
    runs: Runs

    @property
    def words(self) -> int:
        """Number of its words."""
        return self.text.count(" ") + 1 if self.text else 0


def normalised(question: str) -> Normalised:
    """Normal form of a question; of a long one that of its first `MAX_QUESTION_WORDS` words."""
    text = unicodedata.normalize("NFKC", question.replace(IMAGE_PLACEHOLDER, " ")).casefold()
    words = _WORD.findall(text)[:MAX_QUESTION_WORDS]
    runs = frozenset(tuple(words[start : start + _RUN]) for start in range(len(words) - _RUN + 1))
    return Normalised(" ".join(words), runs)


def likeness(first: Normalised, second: Normalised) -> Likeness | None:
    """Way in which two questions are alike; None where they are different, or one has no words."""
    if not first.text or not second.text:
        return None
    if first.text == second.text:
        return Likeness.EQUAL
    if _numbers(first) != _numbers(second) and len(first.runs) and first.words == second.words:
        return None  # one form of sentence with other numbers is another question
    shorter = min(len(first.runs), len(second.runs))
    if shorter >= _LEAST_RUNS and len(first.runs & second.runs) >= LEAST_SHARE * shorter:
        return Likeness.RUNS
    if shorter and fuzz.ratio(first.text, second.text, score_cutoff=LEAST_RATIO):
        return Likeness.RATIO
    return None


def _numbers(question: Normalised) -> Counter[str]:
    return Counter(word for word in question.text.split() if word.isdigit())


class QuestionIndex:
    """Index of evaluation questions by their normal form and by their runs of four words."""

    def __init__(self, questions: Sequence[str]) -> None:
        self._questions = [normalised(question) for question in questions]
        self._equal: dict[str, list[int]] = defaultdict(list)
        by_run: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for number, question in enumerate(self._questions):
            if question.text:
                self._equal[question.text].append(number)
            for run in question.runs:
                by_run[run].append(number)
        self._by_run = {run: numbers for run, numbers in by_run.items() if len(numbers) <= _COMMON}

    def __getitem__(self, number: int) -> Normalised:
        return self._questions[number]

    def alike(self, question: Normalised) -> Iterator[tuple[int, Likeness]]:
        """Numbers of the evaluation questions that are alike, and how, in order."""
        equal = self._equal.get(question.text, [])
        found = {number for run in question.runs for number in self._by_run.get(run, ())}
        for number in sorted(found.union(equal)):
            how = likeness(question, self._questions[number])
            if how is not None:
                yield number, how
