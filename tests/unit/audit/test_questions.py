"""Likeness of questions, lint of answers, histograms."""

from __future__ import annotations

from collections import Counter

import pytest

from codedance_verl.audit.answer_lint import AnswerLint, answer_faults
from codedance_verl.audit.lengths import histogram
from codedance_verl.audit.question_match import Likeness, QuestionIndex, likeness, normalised

LONG = "In which year did the share of respondents who read news online first exceed fifty percent"


@pytest.mark.parametrize(
    ("first", "second", "how"),
    [
        ("How many cars are there?", "<image>\nhow many  CARS are there", Likeness.EQUAL),
        (LONG, f"{LONG}? Answer with a single number.", Likeness.RUNS),
        (LONG, LONG.replace("respondents", "responders"), Likeness.RATIO),
        ("What is the area of the red triangle?", "Which animal stands left of the door?", None),
        ("What is the sum of 12 and 15 in the figure?", "What is the sum of 12 and 16 in the figure?", None),
        ("", "", None),
        ("?", "!", None),
    ],
)
def test_likeness(first: str, second: str, how: Likeness | None) -> None:
    assert likeness(normalised(first), normalised(second)) == how
    assert likeness(normalised(second), normalised(first)) == how


def test_index_finds_what_a_comparison_of_all_pairs_finds() -> None:
    questions = [f"Question {name}: {LONG} in {name} and {name}land" for name in ("Chile", "Peru", "Cuba")]
    questions += ["How many?", "", LONG]
    index = QuestionIndex(questions)
    for asked in (*questions, "how many", "Something else entirely is asked here"):
        question = normalised(asked)
        expected = [(n, how) for n, q in enumerate(questions) if (how := likeness(question, normalised(q)))]
        assert list(index.alike(question)) == expected


def test_runs_of_an_instruction_lead_to_no_candidates() -> None:
    index = QuestionIndex([f"Answer with the option's letter from the given choices. {number}" for number in range(80)])
    assert not list(index.alike(normalised("Answer with the option's letter from the given choices. Which one?")))


@pytest.mark.parametrize(
    ("question", "answer", "fault"),
    [
        ("What is it?", " 3", "blanks around it"),
        ("What is it?", "3.", "a full stop behind a number"),
        ("What is it?", "1,234", "a thousands separator"),
        ("What is it?", "\\boxed{4}", "a box of LaTeX"),
        ("How far?", "12 metres", "a word behind the number"),
        ("What is it?", "(3", "brackets that do not close"),
        ("Which? A. red B. blue", "C", "a letter that is none of the options"),
        ("What colour is the red car?", "red", "stands in the question"),
        ("What is it?", "  ", "empty"),
    ],
)
def test_odd_answers(question: str, answer: str, fault: str) -> None:
    assert fault in list(answer_faults(question, answer))


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("Is it red or blue?", "red"),
        ("Is the answer yes?", "yes"),
        ("How many of the 3 cars?", "3"),
        ("Which? A. red B. blue", "A"),
        ("Which? A. red B. blue", "red"),
        ("On which interval?", "[0, 1)"),
        ("What is it?", "12.5"),
        ("What share?", "45%"),
        ("How long is it?", "3 cm"),
    ],
)
def test_plain_answers(question: str, answer: str) -> None:
    assert not list(answer_faults(question, answer))


def test_lint_names_contradictions_and_counts_answers() -> None:
    lint = AnswerLint()
    lint.add("a row 0", "s", "How many?", "3", [1])
    lint.add("a row 1", "s", "how many", "3", [1])  # a repetition alone is no contradiction
    lint.add("a row 2", "s", "How many?", "4", [1])
    lint.add("a row 3", "s", "How many?", "4", [2])
    lint.add("a row 4", "t", "Which? A. x B. y", "B", [2])
    (found,) = lint.found()
    assert found.fault == "question and images of a record before, with another answer"
    assert (found.records, found.examples) == (1, ("a row 2",))
    first, second = lint.balance()
    assert (first.data_source, first.records, first.answers) == ("s", 4, 2)
    assert dict(first.most_frequent) == {"3": 2, "4": 2}
    assert dict(second.letters) == {"B": 1}


def test_histogram_counts_everything_once() -> None:
    found = histogram(Counter({0: 2, 5: 1, 99: 3}))
    assert sum(found.counts) == 6
    assert found.edges[0] == 0 and found.edges[-1] > 99 and len(found.edges) == len(found.counts) + 1
    assert histogram(Counter()).counts in ((), (0,))


def test_records_with_an_image_that_is_missing_contradict_no_other() -> None:
    lint = AnswerLint()
    for row, answer in enumerate(("3", "4")):
        lint.add(f"a row {row}", "s", "How many?", answer, None)
    assert lint.found() == () and lint.balance()[0].records == 2
