"""Units of measure: dimension, and factor to the basic unit of that dimension.

A unit is a product of powers of basic dimensions and a factor: "km/h" is (m: 1, s: -1) and 5/18. Temperatures and
angles convert to nothing else, and neither do currencies.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache


@dataclass(frozen=True)
class Unit:
    """A unit; `dimension` holds (basic unit, power) in order, `factor` how many of those make it."""

    dimension: tuple[tuple[str, int], ...]
    factor: Fraction = Fraction(1)


PERCENT = Unit((("%", 1),))
DEGREE = Unit((("deg", 1),))
CELSIUS = Unit((("celsius", 1),))
FAHRENHEIT = Unit((("fahrenheit", 1),))

_PREFIXES = {"n": -9, "u": -6, "\N{MICRO SIGN}": -6, "m": -3, "c": -2, "d": -1, "k": 3, "M": 6, "G": 9, "T": 12}
_PREFIX_WORDS = {"nano": -9, "micro": -6, "milli": -3, "centi": -2, "deci": -1, "kilo": 3, "mega": 6, "giga": 9}

# Fractions, not floats: 0.1 m is 10 cm exactly. SI by the BIPM brochure, the others by their legal definitions (NIST
# SP 811): an inch is 2.54 cm, a pound 0.45359237 kg.
_METRIC: dict[str, tuple[str, str, Fraction | int]] = {
    # symbol: word, dimension, factor
    "m": ("metre meter", "m", 1),
    "g": ("gram gramme", "kg", Fraction(1, 1000)),
    "s": ("second", "s", 1),
    "A": ("ampere amp", "A", 1),
    "mol": ("mole", "mol", 1),
    "L": ("litre liter", "m3", Fraction(1, 1000)),
    "l": ("", "m3", Fraction(1, 1000)),
    "N": ("newton", "kg m s-2", 1),
    "Pa": ("pascal", "kg m-1 s-2", 1),
    "J": ("joule", "kg m2 s-2", 1),
    "W": ("watt", "kg m2 s-3", 1),
    "V": ("volt", "kg m2 s-3 A-1", 1),
    "\N{GREEK CAPITAL LETTER OMEGA}": ("ohm", "kg m2 s-3 A-2", 1),
    "\N{OHM SIGN}": ("", "kg m2 s-3 A-2", 1),
    "C": ("coulomb", "A s", 1),
    "Hz": ("hertz", "s-1", 1),
    "T": ("tesla", "kg s-2 A-1", 1),
    "F": ("farad", "A2 s4 kg-1 m-2", 1),
    "K": ("kelvin", "K", 1),
    "B": ("byte", "byte", 1),
    "eV": ("", "eV", 1),
    "cal": ("calorie", "cal", 1),
    "Wh": ("", "kg m2 s-2", 3600),
    "bar": ("", "kg m-1 s-2", 100_000),
}
_OTHERS: dict[str, tuple[str, Fraction | int]] = {
    # all names: dimension, factor
    "% percent pct": ("%", 1),
    "\N{DEGREE SIGN} deg degree": ("deg", 1),
    "rad radian": ("rad", 1),
    "\N{DEGREE SIGN}C celsius": ("celsius", 1),
    "\N{DEGREE SIGN}F fahrenheit": ("fahrenheit", 1),
    "min minute mins": ("s", 60),
    "h hr hrs hour": ("s", 3600),
    "sec secs": ("s", 1),
    "d day": ("s", 86_400),
    "week wk": ("s", 604_800),
    "month": ("month", 1),
    "year yr yrs": ("month", 12),
    "t tonne": ("kg", 1000),
    "ft foot feet '": ("m", Fraction(3048, 10_000)),
    'in inch "': ("m", Fraction(254, 10_000)),
    "yd yard": ("m", Fraction(9144, 10_000)),
    "mi mile": ("m", Fraction(1_609_344, 1000)),
    "lb lbs pound": ("kg", Fraction(45_359_237, 100_000_000)),
    "oz ounce": ("kg", Fraction(45_359_237, 1_600_000_000)),
    "ha hectare": ("m2", 10_000),
    "acre": ("m2", Fraction(40_468_564_224, 10_000_000)),
    "cc": ("m3", Fraction(1, 1_000_000)),
    "gal gallon": ("gal", 1),
    "mph": ("m s-1", Fraction(1_609_344, 3_600_000)),
    "kilo": ("kg", 1),
    "kph kmh kmph": ("m s-1", Fraction(5, 18)),
    "rpm": ("rpm", 1),
    "kb kbit kilobit": ("bit", 10**3),
    "Mb Mbit megabit": ("bit", 10**6),
    "Gb Gbit gigabit": ("bit", 10**9),
    "dB decibel": ("dB", 1),
    "$ US$ USD dollar": ("USD", 1),
    "cent": ("USD", Fraction(1, 100)),
    "\N{EURO SIGN} EUR euro": ("EUR", 1),
    "\N{POUND SIGN} GBP": ("GBP", 1),
    "\N{YEN SIGN} JPY yen": ("JPY", 1),
    "CNY RMB yuan": ("CNY", 1),
    "\N{INDIAN RUPEE SIGN} INR rupee": ("INR", 1),
    "penny pence": ("GBP", Fraction(1, 100)),
    "unit": ("unit", 1),
}
# Chinese and Japanese names, each with its symbol.
_HAN_PAIRS = """
    米 m  厘米 cm  毫米 mm  分米 dm  公里 km  千米 km  メートル m  克 g  千克 kg  公斤 kg  毫克 mg  吨 t  升 L
    毫升 mL  秒 s  分钟 min  分 min  小时 h  天 d  周 wk  个月 month  年 yr  岁 yr  平方米 m^2  平方厘米 cm^2
    平方公里 km^2  立方米 m^3  立方厘米 cm^3  度 deg  摄氏度 celsius  华氏度 fahrenheit  伏 V  安 A  瓦 W
    千瓦 kW  元 CNY  块 CNY  美元 USD  欧元 EUR  英镑 GBP  日元 JPY  円 JPY
"""
_HAN_NAMES = _HAN_PAIRS.split()
_HAN = dict(zip(_HAN_NAMES[::2], _HAN_NAMES[1::2], strict=True))
CURRENCY_SIGNS = "$\N{EURO SIGN}\N{POUND SIGN}\N{YEN SIGN}\N{INDIAN RUPEE SIGN}"
_CURRENCIES = frozenset({"USD", "EUR", "GBP", "JPY", "CNY", "INR"})
_SUPERSCRIPTS = str.maketrans({"\N{SUPERSCRIPT TWO}": "2", "\N{SUPERSCRIPT THREE}": "3", "\N{SUPERSCRIPT MINUS}": "-"})
_SQUARED = re.compile(r"\b(?:square|sq\.?)\s+([^\s/]+)|\b([^\s/]+)\s+squared\b|\bsq([a-z]+)\b")
_CUBED = re.compile(r"\b(?:cubic|cu\.?)\s+([^\s/]+)|\b([^\s/]+)\s+cubed\b")
_FACTOR = re.compile(r"(?P<name>[^\W\d_]+|[%$\N{DEGREE SIGN}]|\N{DEGREE SIGN}[CF]|[^\w\s])(?:\^?(?P<power>-?[1-9]))?")
# a blank or a hyphen multiplies ("N m", "kilowatt-hour"); "m-1" is a power
_PRODUCT = re.compile(r"\s*[*\N{MIDDLE DOT}\N{DOT OPERATOR}]\s*|\s+|(?<=\w)-(?=[^\W\d])")


def is_currency(unit: Unit) -> bool:
    """True if it is the main unit of a currency, not its hundredth."""
    return len(unit.dimension) == 1 and unit.dimension[0][0] in _CURRENCIES and unit.factor == 1


@lru_cache(maxsize=4096)
def parse_unit(text: str) -> Unit | None:
    """Reads a unit ("cm", "km/h", "square metres", "kg m^2 s^-2"); None where any part of the text is none."""
    text = _HAN.get(text.strip(), text)
    text = _CUBED.sub(_raised(3), _SQUARED.sub(_raised(2), text.strip().translate(_SUPERSCRIPTS)))
    text = re.sub(
        r"(?i)\b(?:degrees?|deg\.?)\s+(?=celsius|fahrenheit)|\N{DEGREE SIGN}\s*(?=celsius|fahrenheit)", "", text
    )
    text = re.sub(r"\b(?:degrees?|deg\.?)\s+(?=[CF]\b)|\N{DEGREE SIGN}\s+(?=[CF]\b)", "\N{DEGREE SIGN}", text)
    text = text.replace("per cent", "percent")
    dimension: Counter[str] = Counter()
    factor = Fraction(1)
    for place, part in enumerate(re.split(r"\s*/\s*|\s+per\s+", text)):
        for piece in _PRODUCT.split(part):
            found = _FACTOR.fullmatch(piece)
            unit = _simple_unit(found.group("name")) if found else None
            if found is None or unit is None:
                return None
            power = int(found.group("power") or 1) * (-1 if place else 1)
            for name, exponent in unit.dimension:
                dimension[name] += exponent * power
            factor *= unit.factor**power
    return Unit(tuple(sorted((name, power) for name, power in dimension.items() if power)), factor)


def _raised(power: int) -> Callable[[re.Match[str]], str]:
    return lambda found: f"{next(group for group in found.groups() if group)}^{power}"


def _simple_unit(name: str) -> Unit | None:
    """A unit without powers: by its symbol, then as a word or plural, then by its symbol in another case."""
    if name in _SYMBOLS:
        return _SYMBOLS[name]
    word = name.casefold()
    for spelling in (word, word.removesuffix("s"), word.removesuffix("es")):
        if spelling in _WORDS:
            return _WORDS[spelling]
    return _FOLDED_SYMBOLS.get(_fold(name)) or _FOLDED_SYMBOLS.get(word)


def _fold(symbol: str) -> str:
    """Lower case but for a B at the end, which alone tells bytes from bits: "KB" is a kB, "Gb" is no GB."""
    return symbol[:-1].casefold() + symbol[-1] if symbol.endswith("B") else symbol.casefold()


def _dimension(text: str) -> tuple[tuple[str, int], ...]:
    parts = (re.fullmatch(r"([A-Za-z%]+?)(-?\d*)", item) for item in text.split())
    return tuple(sorted((part.group(1), int(part.group(2) or 1)) for part in parts if part is not None))


def _tables() -> tuple[dict[str, Unit], dict[str, Unit], dict[str, Unit]]:
    """Units by symbol (case matters), by word, and by symbols whose folded form is that of one unit alone."""
    symbols: dict[str, Unit] = {}
    words: dict[str, Unit] = {}
    for symbol, (names, dimension, factor) in _METRIC.items():
        basic = Unit(_dimension(dimension), Fraction(factor))
        symbols[symbol] = basic
        words.update(dict.fromkeys(names.split(), basic))
        for prefix, power in _PREFIXES.items():
            symbols.setdefault(prefix + symbol, Unit(basic.dimension, basic.factor * Fraction(10) ** power))
        for prefix, power in _PREFIX_WORDS.items():
            larger = Unit(basic.dimension, basic.factor * Fraction(10) ** power)
            words.update({prefix + name: larger for name in names.split()})
    for names, (dimension, factor) in _OTHERS.items():
        unit = Unit(_dimension(dimension), Fraction(factor))
        for name in names.split():
            symbols[name] = unit
            if len(name) > 2 and name.islower():
                words[name] = unit
    folded: dict[str, set[Unit]] = {}
    for symbol, unit in symbols.items():
        if len(symbol) > 1:
            key = _fold(symbol) if unit.dimension == symbols["B"].dimension else symbol.casefold()
            folded.setdefault(key, set()).add(unit)
    return symbols, words, {symbol: next(iter(units)) for symbol, units in folded.items() if len(units) == 1}


_SYMBOLS, _WORDS, _FOLDED_SYMBOLS = _tables()

# words of sentences that are units too ("in", "at"): never read as a mention
_NO_MENTION = frozenset({"in", "as", "at", "per", "mi", "us", "ms"})
# in brackets, behind a number, as a word, or as a sign
_MENTION = re.compile(
    r"\(([^()]{1,24})\)|\d\s*([^\s\d,.;?!()]+)|((?:square|cubic|sq)\s+[^\W\d_]+|[^\s\d,.;:?!()]{2,})"
    r"|([%$\N{EURO SIGN}\N{POUND SIGN}])"
)
_POWER = r"(?:\^?\{?-?\d\}?|[\N{SUPERSCRIPT TWO}\N{SUPERSCRIPT THREE}])?"
_POWER_MENTION = re.compile(
    rf"(?<![\w^])([^\W\d_]{{1,5}}{_POWER}(?:[/\N{{MIDDLE DOT}}][^\W\d_]{{1,5}}{_POWER})*)(?![\w^])"
)
_AFTER_IN = re.compile(r"(?:\bin|\bunits?:?|单位[:是]?)\s*([^\s,;:?!()]{1,16})")
_MAX_QUESTION = 4_000


@lru_cache(maxsize=512)
def names_unit(question: str, unit: Unit) -> bool:
    """True if a question names the unit ("in km/h", "(in %)"), so that an answer may leave it out."""
    return unit in _named_units(_without_markup(question[-_MAX_QUESTION:])) or (
        unit == PERCENT and "percentage" in question.casefold()
    )


def names_currency(question: str) -> bool:
    """True if a question names a currency ("in dollars"), so that no other one is meant."""
    return any(map(is_currency, _named_units(_without_markup(question[-_MAX_QUESTION:]))))


def _without_markup(question: str) -> str:
    """Question without what LaTeX puts around a unit: "$\\text{cm}^{2}$" is "cm^2"."""
    if "\\" not in question and "$" not in question:
        return question
    plain = re.sub(r"\\(?:text|mathrm)\s*\{([^{}]*)\}", r"\1", question)
    plain = re.sub(r"\^\s*\{?\s*\\circ\s*\}?", "\N{DEGREE SIGN}", plain)
    return re.sub(r"\$(?=\s?[^\W\d_]{1,5}\^?[^$]{0,8}\$)(\s?[^$]{1,14})\$", r"\1", plain)


@lru_cache(maxsize=256)
def _named_units(question: str) -> frozenset[Unit]:
    found: set[Unit | None] = set()
    for mention in _MENTION.finditer(question):
        bracketed, behind_number, word, sign = mention.groups()
        name = bracketed or behind_number or word or sign
        if word and word.casefold() in _NO_MENTION:
            continue
        candidates = (name, name.casefold().removeprefix("in "), name.removeprefix("in ")) if bracketed else (name,)
        found |= {parse_unit(candidate) for candidate in candidates}
    for mention in _POWER_MENTION.finditer(question):
        if len(mention.group(1)) > 1 and mention.group(1).casefold() not in _NO_MENTION:
            found.add(parse_unit(mention.group(1).replace("{", "").replace("}", "")))
    for mention in _AFTER_IN.finditer(question):
        if mention.group(1) not in ("a", "A", "d", "t"):
            found.add(parse_unit(mention.group(1).rstrip(".")))
    found |= {parse_unit(name) for name in _HAN if name in question}
    return frozenset(unit for unit in found if unit is not None)
