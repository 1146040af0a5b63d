"""Kinds of questions, by their words: for a code, an amount, a fraction, a position, a formula, a temperature.

One text can be several things: "12V" is a seat or a voltage, "3/4" a time signature or a fraction, "2x" a plate or a
formula. Where the form of the ground truth leaves that open, the words of its question decide.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

# Questions come from data files, and every pattern below searches them: bounded, so that a long one costs no more.
# Characters read of a question, at its beginning and at its end.
MAX_CHARS = 4_000


@lru_cache(maxsize=256)
def _words(question: str) -> frozenset[str]:
    return frozenset(re.findall(r"[^\W\d_]+", _excerpt(question).casefold()))


def _excerpt(question: str) -> str:
    return question if len(question) <= 2 * MAX_CHARS else f"{question[:MAX_CHARS]} {question[-MAX_CHARS:]}"


def _has(pattern: str) -> Callable[[str], bool]:
    """Test of a question for a pattern in either case."""
    compiled = re.compile(pattern, re.IGNORECASE)
    return lambda question: compiled.search(_excerpt(question)) is not None


def _names(words: str) -> Callable[[str], bool]:
    """Test of a question for any of the words."""
    wanted = frozenset(words.split())
    return lambda question: bool(_words(question) & wanted)


# places, whose codes may be written in either case ("12b" for seat 12B)
_names_place = _names("""
    seat seats gate gates door doors room rooms flat apartment suite platform terminal bay locker aisle bus tram
    train flight exit dock lane plate plates jersey shirt badge cell desk pier ward berth coach carriage rack
    shelf drawer classroom square bib bench pitch stall slot
""")

# other things that are named by a code
_names_code = _names("""
    code codes serial license licence registration version model section chapter clause paragraph subsection
    appendix ticket postcode zipcode zip pin password barcode catalogue catalog isbn sku identifier id imei
    phone telephone vitamin droid robot aircraft airplane plane jet highway motorway route channel molecule
    compound chemical isotope chord revision firmware release build keyboard pencil resolution network race
    protein gene virus
""")

# a number that only tells things apart, so that its zeros in front count
_names_numbered = _has(
    r"\b(?:account|order|invoice|reference|tracking|item|lot|batch|house|case|employee|student|track|card|member|part)\s+"
    r"(?:number|no\.?|id)\b"
)

# what is written, or called, somewhere
asks_reading = _names("""
    written printed engraved inscription label labels labelled labeled stamped embossed sign signs say says
    reads text caption logo brand called named bottle station street shop store title spelled spelt tag tags
    name names
""")

# the very text of something, or its spelling
asks_written = _has(
    r"\b(?:written|printed|engraved|inscription|inscribed|stamped|says?|reads?|text|spell\w*|spelt|captions?"
    r"|transcri\w+|verbatim|exact\w*|words?|letters?|characters?)\b"
)

# how many, how much, or a quantity by its name
asks_amount = _has(
    r"\bhow\s+(?:many|much|long|tall|wide|high|far|old|fast|heavy|big|large|deep)\b|\b(?:number|amount|share)\s+of\b|"
    r"\b(?:percent|percentage|total|sum|average|mean|median|difference|distance|price|costs?|amount|area|length|height|"
    r"width|depth|speed|weight|mass|voltage|current|power|resistance|capacity|duration|population|revenue|value)\b"
)

# how many there are, also in Chinese and Japanese
asks_count = _has(r"\b(?:how\s+many|number\s+of|counts?|total)\b|几|多少|いくつ|何")

# mathematics by its words, by LaTeX, or by a formula in the question: a power, "f(", "x =" and "value of x"
_names_maths = _has(
    r"\b(?:simplif\w+|expand\w*|expansion|factor\w*|solve|solutions?|evaluate|compute|calculate|derivative|integral|"
    r"differentiate|integrate|antiderivative|expressions?|equations?|inequality|polynomial|functions?|in\s+terms\s+of|"
    r"express|variables?|slope|gradient|coefficient|algebra\w*|quotient|remainder|perimeter|circumference|radius|"
    r"diameter|monomial|binomial|trinomial|nth\s+term|general\s+term|product|identity|multiply|double)\b"
    r"|\\[A-Za-z]{2,}|[A-Za-z0-9)]\s?\^|(?<![^\W\d_])[a-z]\s?[=+]|\bf\s?\(|\bvalue\s+of\s+\$?[a-z]\b"
)

# a temperature, where C and F behind a number are degrees and no coulombs or farads
asks_temperature = _has(
    r"\b(?:temperatures?|celsius|fahrenheit|thermometer|hot|cold|warm|warmer|(?:warm|cold|hott)est|weather|forecast|"
    r"oven|fever|boil\w*|freez\w*|melt\w*|kelvin)\b|\N{DEGREE SIGN}\s?[CF]\b|[\N{DEGREE CELSIUS}\N{DEGREE FAHRENHEIT}]"
    r"|温度|气温"
)

# a part of something
asks_fraction = _has(
    r"\b(?:fractions?|portions?|proportions?|share|probability|chance|ratio|how\s+much|simplif\w+|(?:what|which)\s+part)\b"
)

# a place in an order, which an ordinal number names
asks_position = _names("""
    position positions place floor floors rank ranked row column century grade storey story inning edition
    anniversary lap round day date level placed finish finished
""")

# what is written with a slash and is no fraction: a date, a score, a time signature, a visual acuity
_names_slashed = _names("""
    time date dates day month when score scores scored signature acuity eyesight vision rating ratings rated page
    pages blood pressure match game grade odds
""")
_names_fraction = _names("fraction probability")

# the score of a game
asks_score = _names("score scores scored result match game set")

# an order: by its name, by comparing, or by two ends ("from left to right")
_names_order = _has(
    r"\b(?:order\w*|sequen\w+|respectively|rank\w*|first|last|then|next|steps?|(?:counter|anti)?-?clockwise"
    r"|coordinates?|dimensions?|arrange\w*|sort\w*|(?:high|low|larg|small|old|new|fast|slow|tall|short)est|and|ascending"
    r"|descending|chronolog\w+|alphabetic\w*|(?:inner|outer|top|bottom)most|start\w*|begin\w*|before|after|consecutive\w*"
    r"|success\w+|route|path|podium|timeline|from\s.{1,60}?\sto"
    r"|(?:left|right|top|bottom)\s+to\s+(?:left|right|top|bottom))\b"
)

# bare "any order" counts only as a remark of its own ("(any order)"): "Is there any order ...?" asks for one
_says_any_order = _has(
    r"\b(?:in\s+any\s+order|any\s+order\s+(?:is|will|works)|(?<=[(,;:.-])any\s+order|(?<=[(,;:.-]\s)any\s+order|no\s+(?:particular|special|specific)\s+order|regardless\s+of\s+(?:the\s+)?order|unordered"
    r"|order\s+(?:does\s+not|doesn['\u2019]t|is\s+not|isn['\u2019]t|is\s+ir)\s*(?:matter|important|relevant))\b"
)

# numbers without an order: solutions, roots, factors
asks_solutions = _has(
    r"\b(?:solutions?|roots|zeros|zeroes|[xy]-intercepts|factors|divisors|primes?|multiples|which\s+numbers)\b"
)

# an interval of numbers
asks_interval = _has(r"\b(?:intervals?|domain|range|inequalit\w+|values\s+of|solutions?|(?:in|de)creasing)\b")

# several things at once ("Colours?", "Which two ...", "List ..."); "bus", "glass" and "tennis" are no plurals
asks_several = _has(
    r"\b(?:list|all|both|two|three|four|five|six|each|(?:which|what)\s+(?:\w+\s+)?are|name\s+the|(?:which|what)\s+(?:\w+\s+)?[a-z]{3,}(?<![suia])s)\b"
    r"|^\W*(?:(?:which|what)\s+)?(?:[a-z]+\s+)?(?!is\b|was\b|has\b|does\b|this\b|bus\b)[a-z]{3,}(?<![suia])s\b"
)

# a language that writes 0,5 for 0.5, by its letters or its question words
writes_decimal_commas = _has(
    r"[äöüßéèêëçñãõàìòùîôûåøæœąćęłńśźżáíóúýčďěňřšťůž¿¡\u0400-\u04ff]"
    r"|\b(?:wie|viel|viele|welche[rsn]?|wert|ist|quel|quelle|quels|quelles|combien|cuanto|cuanta|cual|qual|quanto|"
    r"quanti|quanta|hoeveel|wat|ile|jaki|kuinka|hvor)\b"
)

# Chinese or Japanese
writes_han = _has(r"[\u3040-\u30ff\u3400-\u9fff]")


def asks_code(question: str) -> bool:
    """True for what a code names (seat, gate, plate, serial number, section), where every digit counts."""
    named = _names_place(question) or _names_code(question) or _names_numbered(question)
    return named and not asks_amount(question)


def asks_place(question: str) -> bool:
    """True for a code whose letters may be of either case: a seat, a gate, a plate."""
    return _names_place(question) and not _names_code(question) and not asks_amount(question)


def asks_formula(question: str) -> bool:
    """True for mathematics or a formula in the question, unless a code or something written is asked for."""
    return _names_maths(question) and not asks_code(question) and not asks_reading(question)


def asks_slashed(question: str) -> bool:
    """True for a date, a score, a time signature or a visual acuity."""
    return _names_slashed(question) and not _names_fraction(question)


def asks_order(question: str) -> bool:
    """True for several things whose order counts."""
    return _names_order(question) and not _says_any_order(question)
