"""Statements of an answer in the text that code printed: numbers, words, option letters, and colours as RGB values."""

from __future__ import annotations

import colorsys
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from codedance_verl.tasks.letters import letter_in_sentence, lettered

_TOKEN = re.compile(r"-?\d+(?:,\d{3})+(?:\.\d+)?|-?\d+(?:\.\d+)?|[^\W\d_]+")
_TRIPLE = re.compile(r"[(\[]\s*(\d{1,3}(?:\.\d*)?)[\s,]+(\d{1,3}(?:\.\d*)?)[\s,]+(\d{1,3}(?:\.\d*)?)\s*[)\]]")
_ARRAY_SCALAR = re.compile(r"\bnp\.\w+\(([^()]*)\)")
_SHORT = 2
"""Words of an answer that all have to be stated; of a longer one, any."""

_NUMBER_WORDS = (
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
)
_NUMBERS = {word: float(number) for number, word in enumerate(_NUMBER_WORDS)}
_EMPTY = frozenset(
    (
        "a",
        "an",
        "the",
        "is",
        "are",
        "of",
        "in",
        "on",
        "at",
        "to",
        "and",
        "it",
        "its",
        "this",
        "that",
        "answer",
        "option",
    )
)
_HUES = ((15, "red"), (42, "orange"), (70, "yellow"), (165, "green"), (200, "cyan"), (260, "blue"), (320, "purple"))
_SAME = {"gray": "grey", "violet": "purple", "magenta": "pink"}


@dataclass(frozen=True)
class Answer:
    """Answer in the forms in which a text may state it: each is a tuple of numbers and words, casefolded."""

    forms: tuple[tuple[str | float, ...], ...]
    letter: str = ""

    def stated_in(self, text: str) -> bool:
        """True where the text has all tokens of a form, or the option's letter standing alone."""
        if not text:
            return False
        if self.letter and re.search(rf"(?<![\w']){self.letter}(?![\w'])", text):
            return True
        found = [*_tokens(text), *colours_in(text)]
        return any(all(_has(found, token) for token in form) for form in self.forms)


def answer_of(text: str, choices: Sequence[str] = (), question: str = "") -> Answer:
    """Forms of a final answer.

    One that names an option is stated by its letter or by its text. One with numbers is stated by all of its numbers,
    any other by its words: those that the question does not have, if there are any.
    """
    letters = lettered(choices)
    letter = letter_in_sentence(text, letters) if letters else ""
    said = _content(letters[letter] if letter else text)
    if numbers := tuple(token for token in said if isinstance(token, float)):
        return Answer((numbers,), letter)
    asked = frozenset(_tokens(question))
    words = tuple(token for token in said if token not in asked) or said
    if len(words) <= _SHORT:
        return Answer((words,) if words else (), letter)
    return Answer(tuple((word,) for word in words), letter)


def colours_in(text: str) -> Iterator[str]:
    """Names of the RGB values, 0 to 255, that stand in brackets in a text."""
    for found in _TRIPLE.finditer(_ARRAY_SCALAR.sub(r"\1", text)):
        red, green, blue = (min(float(part), 255.0) / 255 for part in found.groups())
        yield _colour(red, green, blue)


def _colour(red: float, green: float, blue: float) -> str:
    hue, saturation, value = colorsys.rgb_to_hsv(red, green, blue)
    if value < 0.2:
        return "black"
    if saturation < 0.2:
        return "white" if value > 0.85 else "grey"
    degrees = hue * 360
    # brown has no hue of its own: it is a dark orange
    if 10 <= degrees < 42 and value < 0.65:
        return "brown"
    # red lies at both ends of the circle
    name = next((name for end, name in _HUES if degrees < end), "red" if degrees >= 345 else "pink")
    return "pink" if name == "red" and saturation < 0.5 and value > 0.8 else name


def _tokens(text: str) -> Iterator[str | float]:
    for token in _TOKEN.findall(text):
        word = token.casefold()
        # `cm²` and `½` are words: float reads decimal digits alone
        number = token[-1].isdecimal()
        yield float(token.replace(",", "")) if number else _NUMBERS.get(word, _SAME.get(word, word))


def _content(text: str) -> tuple[str | float, ...]:
    tokens = tuple(_tokens(text))
    return tuple(token for token in tokens if token not in _EMPTY) or tokens


def _has(found: Sequence[str | float], token: str | float) -> bool:
    if isinstance(token, str):
        return token in found
    return any(isinstance(other, float) and _rounds_to(other, token) for other in found)


def _rounds_to(value: float, answer: float) -> bool:
    """True where a value, rounded to the decimals of the answer, is the answer."""
    _, _, decimals = f"{answer:.10g}".partition(".")
    # A whole answer is a count or a label: 4.3 does not state 4.
    # a little above a half: decimal fractions are not exact in binary
    return abs(value - answer) <= (0.5000001 * 10 ** -len(decimals) if decimals else 1e-9)
