"""Turns as models write them: what is read of each, and whether generation goes on behind it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from codedance_verl.formats import ParsedTurn, get_format

FOLDER = Path(__file__).parents[2] / "data" / "cases" / "formats"
CASES = {
    case["id"]: case
    for name in ("index.json", "passing.json")
    for case in json.loads((FOLDER / name).read_text(encoding="utf-8"))["cases"]
}

IN_WORDS: dict[str, ParsedTurn] = {
    "formats-01": ParsedTurn(code="text = '''\n```\nabc\n```\n'''\nprint(text)"),
    "formats-15": ParsedTurn(code="print(1)"),
    "formats-18": ParsedTurn(),
    "formats-19": ParsedTurn(),
}
"""Of the cases whose expectation is a sentence, what it means."""

GOES_ON = ("formats-18", "formats-19")
REFUSED = ("formats-12",)
"""Expected to be guessed, and refused: a quote that is not escaped in JSON leaves open where the code ends."""


def expected(case: dict[str, Any]) -> ParsedTurn:
    kind, text = case["expected"]
    return ParsedTurn(**{kind: text})


@pytest.mark.parametrize("name", [name for name in CASES if name not in REFUSED])
def test_the_turn_is_read_as_expected(name: str) -> None:
    case = CASES[name]
    parsed = get_format(case["input"]["format"]).parse(case["input"]["text"])
    assert parsed == (IN_WORDS[name] if name in IN_WORDS else expected(case))


@pytest.mark.parametrize("name", CASES)
def test_generation_goes_on_only_where_a_stop_string_ends_no_turn(name: str) -> None:
    asked = CASES[name]["input"]
    end = get_format(asked["format"]).end(asked["text"])
    assert end == (None if name in GOES_ON else len(asked["text"]))


@pytest.mark.parametrize("name", REFUSED)
def test_a_call_that_is_refused_says_why(name: str) -> None:
    asked = CASES[name]["input"]
    fault = get_format(asked["format"]).parse(asked["text"]).fault
    assert fault is not None and "no valid JSON" in fault and 'a quote is written \\"' in fault
