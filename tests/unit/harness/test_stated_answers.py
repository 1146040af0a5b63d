"""Answers in printed text: numbers, words, letters of options, sentences, RGB values."""

from __future__ import annotations

import time

import pytest

from codedance_verl.harness.stated_answers import answer_of, colours_in

OPTIONS = ("glass", "red metal", "paper")


@pytest.mark.parametrize(
    ("answer", "text", "stated"),
    [
        ("4", "found 4 discs", True),
        ("4", "found 4.0", True),
        ("4", "found 14, 40 and 4.3", False),
        ("four", "n = 4", True),
        ("4", "Four", True),
        ("3.14", "3.14159", True),
        ("3.14", "3.15", False),
        ("1,200", "1200", True),
        ("-5", "5", False),
        ("red", "the mean is [212.3  38.1  44.9]", True),
        ("red", "(np.float64(212.3), np.float64(38.1), np.float64(44.9))", True),
        ("Blue.", "(212, 38, 44)", False),
        ("grey", "gray", True),
        ("left", "it is leftover", False),
        ("stop sign", "sign: STOP", True),
        ("stop sign", "sign", False),
        ("", "anything", False),
        ("12 cm\N{SUPERSCRIPT TWO}", "area: 12.0 cm\N{SUPERSCRIPT TWO}", True),
        ("\N{VULGAR FRACTION ONE HALF}", "\N{VULGAR FRACTION ONE HALF} of it", True),
        ("red", "\N{SUPERSCRIPT THREE}\N{CIRCLED DIGIT ONE}", False),
        ("inf", "Inf", True),
    ],
)
def test_a_short_answer(answer: str, text: str, stated: bool) -> None:
    assert answer_of(answer).stated_in(text) is stated


def test_an_option_is_stated_by_letter_or_text() -> None:
    answer = answer_of("(B)", OPTIONS)
    assert answer.stated_in("B") and answer.stated_in("answer: B.") and answer.stated_in("Metal, red")
    assert not answer.stated_in("Bottle") and not answer.stated_in("red paper") and not answer.stated_in("'B's")
    assert answer_of("The cup is made of paper.", OPTIONS).stated_in("paper")


def test_a_sentence_is_stated_by_what_it_adds_to_the_question() -> None:
    count = answer_of("There are 4 red discs in the image.", question="How many red discs are there?")
    assert count.stated_in("n: 4") and not count.stated_in("red discs in the image: 5")
    colour = answer_of("The cup on the table is green.", question="What colour does the cup on the table have?")
    assert colour.stated_in("green") and not colour.stated_in("cup on the table")


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ("(0, 0, 0)", "black"),
        ("(250, 250, 250)", "white"),
        ("[120, 122, 119]", "grey"),
        ("(120, 70, 30)", "brown"),
        ("(255, 150, 160)", "pink"),
        ("(0, 200, 210)", "cyan"),
    ],
)
def test_names_of_rgb_values(values: str, name: str) -> None:
    assert list(colours_in(f"mean {values}")) == [name]


@pytest.mark.parametrize("unit", ["(1 ", "9", "np.a(", "(1,1", " ", "1,111", "-"])
def test_long_texts_are_read_in_time(unit: str) -> None:
    start = time.process_time()
    answer_of("red 7").stated_in(unit * (64_000 // len(unit)))
    assert time.process_time() - start < 2
