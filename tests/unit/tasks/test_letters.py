"""Letters of options that replies name, by two rules."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from codedance_verl.tasks.letters import MAX_SENTENCE_CHARS, letter_as_vlmevalkit, letter_in_sentence, lettered

OFFICIAL = json.loads((Path(__file__).parents[2] / "data/tasks/letters.json").read_text())
COLOURS = {"A": "red", "B": "dark red", "C": "blue", "D": "green"}
PLACES = {"A": "The red car", "B": "blue", "C": "left side", "D": "right side"}


@pytest.mark.parametrize("number", range(len(OFFICIAL["choices"])))
def test_letters_are_those_of_the_script(number: int) -> None:
    """Replies on which VLMEvalKit's own function was run."""
    choices = OFFICIAL["choices"][number]
    rows = [row for row in OFFICIAL["rows"] if row["choices"] == number]
    assert len(rows) > 100
    differing = [row for row in rows if letter_as_vlmevalkit(row["reply"], choices) != row["letter"]]
    assert not differing


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        ("B", "B"),
        ("(C)", "C"),
        ("The answer is b.", "B"),
        ("the answer is a red cup", "A"),  # an article taken for an option
        ("A or B", ""),
        ("blue", "C"),
        ("dark red", ""),  # the text of two options
        ("It says " + "blue and " * 9, ""),  # longer than twice the options
        ("Z", "Z"),
        ("Cannot determine the answer, so A", "Z"),
        ("B is what I choose of all of these", ""),  # too far from the end
        ("of all of these I choose B", "B"),
    ],
)
def test_corner_cases_of_the_script(reply: str, letter: str) -> None:
    assert letter_as_vlmevalkit(reply, COLOURS) == letter


NAMED = {
    "A": "A|(A)|a.|Answer: A|The answer is (A).|A. The red car|A: The red car|the red car|A red car|**A**|A is right",
    "B": "B|I think B|I'd choose B.|BLUE|It is blue.|B) blue|\\boxed{B}|My final answer is (B).|No, B",
    "C": "C|The correct option is C|Answer: B\nAnswer: C|on the left side|Because it is red, (C)|C is right here",
    "D": "D|The answer is: **D**|Option (D) is right|Answer: D|The answer is D because C is wrong and A too|{D}",
    "": "|A or B|(A) or (B)|the answer is A or B|The answer is A/B|blueish|A cat|left|Black|Because it is nice|E|"
    "The answer is E|the left side, not the right side|The options are A, B, C and D; I take C|yellow|AB|none",
}


@pytest.mark.parametrize(
    ("reply", "letter"), [(reply, letter) for letter, replies in NAMED.items() for reply in replies.split("|")]
)
def test_the_one_option_that_a_sentence_names(reply: str, letter: str) -> None:
    assert letter_in_sentence(reply, PLACES) == letter


def test_the_longer_of_two_texts_counts_where_one_holds_the_other() -> None:
    assert letter_in_sentence("It is dark red.", COLOURS) == "B"
    assert letter_in_sentence("It is red.", COLOURS) == "A"


def test_blanks_count_as_one_and_the_end_of_a_long_reply_is_read() -> None:
    assert letter_in_sentence("The answer" + "\n" * 20_000 + "is B", PLACES) == "B"
    assert letter_in_sentence("It is on the\n left  side.", {**PLACES, "C": "left\nside"}) == "C"
    assert letter_in_sentence("Option A? " + "well " * MAX_SENTENCE_CHARS + "I take B.", PLACES) == "B"
    assert letter_in_sentence("Option A. " + "well " * MAX_SENTENCE_CHARS, PLACES) == ""


def test_letters_go_by_the_order_of_options() -> None:
    assert lettered(("x", "y")) == {"A": "x", "B": "y"}
