"""What a question asks for, by its words: a code, an amount, a fraction, a position, a formula, a temperature.

One text can be several things: "12V" is a seat or a voltage, "3/4" a time signature or a fraction, "2x" a plate or a
formula. Where the form of the ground truth leaves that open, the words of its question settle it.
"""

from __future__ import annotations

import re
from functools import lru_cache

MAX_CHARS = 4_000
"""What is read of a question: as many of its first characters, and as many of its last."""

_PLACES_WORDS = """
    seat seats gate gates door doors room rooms flat apartment suite platform terminal bay locker aisle bus tram
    train flight exit dock lane plate plates jersey shirt badge cell desk pier ward berth coach carriage rack
    shelf drawer classroom square bib bench pitch stall slot
"""
_PLACES = frozenset(_PLACES_WORDS.split())
_CODES_WORDS = """
    code codes serial license licence registration version model section chapter clause paragraph subsection
    appendix ticket postcode zipcode zip pin password barcode catalogue catalog isbn sku identifier id imei
    phone telephone vitamin droid robot aircraft airplane plane jet highway motorway route channel molecule
    compound chemical isotope chord revision firmware release build keyboard pencil resolution network race
    protein gene virus
"""
_CODES = frozenset(_CODES_WORDS.split())
_READING_WORDS = """
    written printed engraved inscription label labels labelled labeled stamped embossed sign signs say says
    reads text caption logo brand called named bottle station street shop store title spelled spelt tag tags
    name names
"""
_READING = frozenset(_READING_WORDS.split())
_WRITTEN = re.compile(
    r"\b(?:written|printed|engraved|inscription|inscribed|stamped|says?|reads?|text|spell\w*|spelt|captions?"
    r"|transcri\w+|verbatim|exact\w*|words?|letters?|characters?)\b",
    re.IGNORECASE,
)
_AMOUNTS = re.compile(
    r"\bhow\s+(?:many|much|long|tall|wide|high|far|old|fast|heavy|big|large|deep)\b|\b(?:number|amount|share)\s+of\b|"
    r"\b(?:percent|percentage|total|sum|average|mean|median|difference|distance|price|costs?|amount|area|length|height|"
    r"width|depth|speed|weight|mass|voltage|current|power|resistance|capacity|duration|population|revenue|value)\b",
    re.IGNORECASE,
)
_NUMBERED = re.compile(
    r"\b(?:account|order|invoice|reference|tracking|item|lot|batch|house|case|employee|student|track|card|member|part)\s+"
    r"(?:number|no\.?|id)\b",
    re.IGNORECASE,
)
_MATHS = re.compile(
    r"\b(?:simplif\w+|expand\w*|expansion|factor\w*|solve|solutions?|evaluate|compute|calculate|derivative|integral|"
    r"differentiate|integrate|antiderivative|expressions?|equations?|inequality|polynomial|functions?|in\s+terms\s+of|"
    r"express|variables?|slope|gradient|coefficient|algebra\w*|quotient|remainder|perimeter|circumference|radius|"
    r"diameter|monomial|binomial|trinomial|nth\s+term|general\s+term|product|identity|multiply|double)\b"
    r"|\\[A-Za-z]{2,}|[A-Za-z0-9)]\s?\^|(?<![^\W\d_])[a-z]\s?[=+]|\bf\s?\(|\bvalue\s+of\s+\$?[a-z]\b",
    re.IGNORECASE,
)
_TEMPERATURE = re.compile(
    r"\b(?:temperatures?|celsius|fahrenheit|thermometer|hot|cold|warm|warmer|(?:warm|cold|hott)est|weather|forecast|"
    r"oven|fever|boil\w*|freez\w*|melt\w*|kelvin)\b|\N{DEGREE SIGN}\s?[CF]\b|[\N{DEGREE CELSIUS}\N{DEGREE FAHRENHEIT}]"
    r"|温度|气温",
    re.IGNORECASE,
)
_FRACTION = re.compile(
    r"\b(?:fractions?|portions?|proportions?|share|probability|chance|ratio|how\s+much|simplif\w+|(?:what|which)\s+part)\b",
    re.IGNORECASE,
)
_COUNT = re.compile(r"\b(?:how\s+many|number\s+of|counts?|total)\b|几|多少|いくつ|何", re.IGNORECASE)
_POSITION_WORDS = """
    position positions place floor floors rank ranked row column century grade storey story inning edition
    anniversary lap round day date level placed finish finished
"""
_POSITION = frozenset(_POSITION_WORDS.split())
_SLASHED_WORDS = """
    time date dates day month when score scores scored signature acuity eyesight vision rating ratings rated page
    pages blood pressure match game grade odds
"""
_SLASHED = frozenset(_SLASHED_WORDS.split())
_SCORE = frozenset(["score", "scores", "scored", "result", "match", "game", "set"])
_ORDER = re.compile(
    r"\b(?:order\w*|sequen\w+|respectively|rank\w*|first|last|then|next|steps?|(?:counter|anti)?-?clockwise"
    r"|coordinates?|dimensions?|arrange\w*|sort\w*|(?:high|low|larg|small|old|new|fast|slow|tall|short)est|and|ascending"
    r"|descending|chronolog\w+|alphabetic\w*|(?:inner|outer|top|bottom)most|start\w*|begin\w*|before|after|consecutive\w*"
    r"|success\w+|route|path|podium|timeline|from\s.{1,60}?\sto"
    r"|(?:left|right|top|bottom)\s+to\s+(?:left|right|top|bottom))\b",
    re.IGNORECASE,
)
_NO_ORDER = re.compile(
    r"\b(?:in\s+any\s+order|any\s+order\s+(?:is|will|works)|(?<=[(,;:.-])any\s+order|(?<=[(,;:.-]\s)any\s+order|no\s+(?:particular|special|specific)\s+order|regardless\s+of\s+(?:the\s+)?order|unordered"
    r"|order\s+(?:does\s+not|doesn['\u2019]t|is\s+not|isn['\u2019]t|is\s+ir)\s*(?:matter|important|relevant))\b",
    re.IGNORECASE,
)
_SOLUTIONS = re.compile(
    r"\b(?:solutions?|roots|zeros|zeroes|[xy]-intercepts|factors|divisors|primes?|multiples|which\s+numbers)\b",
    re.IGNORECASE,
)
_INTERVAL = re.compile(r"\b(?:intervals?|domain|range|inequalit\w+|values\s+of|solutions?|(?:in|de)creasing)\b", re.I)
_SEVERAL = re.compile(
    r"\b(?:list|all|both|two|three|four|five|six|each|(?:which|what)\s+(?:\w+\s+)?are|name\s+the|(?:which|what)\s+(?:\w+\s+)?[a-z]{3,}(?<![suia])s)\b"
    r"|^\W*(?:(?:which|what)\s+)?(?:[a-z]+\s+)?(?!is\b|was\b|has\b|does\b|this\b|bus\b)[a-z]{3,}(?<![suia])s\b",
    re.IGNORECASE,
)
_EUROPEAN = re.compile(
    r"[äöüßéèêëçñãõàìòùîôûåøæœąćęłńśźżáíóúýčďěňřšťůž¿¡\u0400-\u04ff]"
    r"|\b(?:wie|viel|viele|welche[rsn]?|wert|ist|quel|quelle|quels|quelles|combien|cuanto|cuanta|cual|qual|quanto|"
    r"quanti|quanta|hoeveel|wat|ile|jaki|kuinka|hvor)\b",
    re.IGNORECASE,
)
_HAN = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]")


@lru_cache(maxsize=256)
def _words(question: str) -> frozenset[str]:
    return frozenset(re.findall(r"[^\W\d_]+", _excerpt(question).casefold()))


def _excerpt(question: str) -> str:
    return question if len(question) <= 2 * MAX_CHARS else f"{question[:MAX_CHARS]} {question[-MAX_CHARS:]}"


def asks_code(question: str) -> bool:
    """For what is named by a code (seat, gate, plate, serial number, section), where every digit counts."""
    named = _words(question) & (_PLACES | _CODES) or _NUMBERED.search(_excerpt(question))
    return bool(named) and not asks_amount(question)


def asks_place(question: str) -> bool:
    """For a code whose letters may be of either case: a seat, a gate, a plate."""
    return bool(_words(question) & _PLACES) and not _words(question) & _CODES and not asks_amount(question)


def asks_reading(question: str) -> bool:
    """For what is written, or called, somewhere."""
    return bool(_words(question) & _READING)


def asks_written(question: str) -> bool:
    """For the very text of something, or how it is spelled."""
    return _WRITTEN.search(_excerpt(question)) is not None


def asks_amount(question: str) -> bool:
    """How many, how much, or for a quantity by its name."""
    return _AMOUNTS.search(_excerpt(question)) is not None


def asks_count(question: str) -> bool:
    """How many there are."""
    return _COUNT.search(_excerpt(question)) is not None


def asks_formula(question: str) -> bool:
    """Whether it is one of mathematics, or has a formula in it, and asks for no code and nothing written."""
    excerpt = _excerpt(question)
    return _MATHS.search(excerpt) is not None and not asks_code(question) and not asks_reading(question)


def asks_temperature(question: str) -> bool:
    """For a temperature."""
    return _TEMPERATURE.search(_excerpt(question)) is not None


def asks_fraction(question: str) -> bool:
    """For a part of something."""
    return _FRACTION.search(_excerpt(question)) is not None


def asks_position(question: str) -> bool:
    """For a place in an order, which an ordinal number names: a floor, a rank."""
    return bool(_words(question) & _POSITION)


def asks_slashed(question: str) -> bool:
    """For what is written with a slash and is no fraction: a date, a score, a time signature, a visual acuity."""
    return bool(_words(question) & _SLASHED) and not _words(question) & {"fraction", "probability"}


def asks_score(question: str) -> bool:
    """For the score of a game."""
    return bool(_words(question) & _SCORE)


def asks_order(question: str) -> bool:
    """For several things whose order says something."""
    excerpt = _excerpt(question)
    return _NO_ORDER.search(excerpt) is None and _ORDER.search(excerpt) is not None


def asks_solutions(question: str) -> bool:
    """For numbers whose order says nothing: solutions, roots, factors."""
    return _SOLUTIONS.search(_excerpt(question)) is not None


def asks_interval(question: str) -> bool:
    """For an interval of numbers."""
    return _INTERVAL.search(_excerpt(question)) is not None


def asks_several(question: str) -> bool:
    """For several things at once ("Colours?", "Which two ...", "List ...")."""
    return _SEVERAL.search(_excerpt(question)) is not None


def writes_decimal_commas(question: str) -> bool:
    """Whether its language is one that writes 0,5 for 0.5."""
    return _EUROPEAN.search(_excerpt(question)) is not None


def writes_han(question: str) -> bool:
    """Whether it is in Chinese or Japanese."""
    return _HAN.search(_excerpt(question)) is not None
