"""Normal form of a text, the same for spellings of one answer, without making different answers alike."""

from __future__ import annotations

import re
import unicodedata

from codedance_verl.grading.rules.latex import to_plain

_QUOTES = {  # by the opening sign the closing ones
    **dict(zip("\"'*_«“", "\"'*_»”", strict=True)),
    "`": "`'",
    "\N{LEFT SINGLE QUOTATION MARK}": "\N{RIGHT SINGLE QUOTATION MARK}",
}
_TRAILING = ".,;:\N{IDEOGRAPHIC FULL STOP}"
_AFTER_LETTER = "!?"  # behind a digit these mean something ("3!")
_THE = re.compile(r"^the\s+(?=\S)", re.IGNORECASE)
_ARTICLE = re.compile(r"^an?\s+(?=\S)")
# hyphens and commas between words, not between digits: "T-shirt" is "t shirt", "3-4" stays
_BETWEEN_WORDS = re.compile(
    r"(?<=[^\W\d_])(?:[-,;:]+\s*|\.\s+)(?=[^\W\d_])|(?<=[^\W\d_]{3})-(?=\d)|(?<=\d)-(?=[^\W\d_]{3})"
)
_AROUND_SIGNS = re.compile(r"\s*([:/=+<>&()\[\]{}\N{MULTIPLICATION SIGN}])\s*")
_COMMAND = re.compile(r"\\[A-Za-z]+|(?<![^\W\d_])(?:sqrt|sin|cos|tan|log|exp)(?=\s*\()")
_WORD = re.compile(r"[^\W\d_]{3}|[^\W\d_\u0000-\u024f\u0370-\u03ff\u2100-\u214f]")  # or of a script without formulas
_OPERATOR = re.compile(r"[\\^_=+*/<>]")
# short words that are no names of variables
_SHORT = "am at by go he in it me my no of ok on pm to tv uk up us we"
_SHORT_WORDS = frozenset(_SHORT.split())
_BRACKETED = re.compile(r"\(([^()\[\]{},]+)\)|\[([^()\[\]{},]+)\]|\{([^()\[\]{},]+)\}")
# a number with a short unit, whose case counts; possessive, so that a long run of letters is matched in one way only
_SHORT_UNIT = re.compile(
    r"[-+]?[\d.,]+\s*(?:(?<![^\W\d_])[^\W\d_]{1,3}+(?![^\W\d_])"
    r"|[\s/*^\N{MIDDLE DOT}\d\N{SUPERSCRIPT TWO}\N{SUPERSCRIPT THREE}-])+"
)
_LEAD = re.compile(
    r"(?:so,?\s+|thus,?\s+|therefore,?\s+|hence,?\s+)?(?:"
    r"(?:the\s+|my\s+)?(?:final\s+|correct\s+|right\s+)?"
    r"(?:answer|result)(?:\s+(?:is|are)(?![^\W_])\s*:?|\s*[:=])|it\s+is|it's|this\s+is|i\s+(?:choose|pick|select))\s*"
    r"(?=\S)",
    re.IGNORECASE,
)
_FOLDED = {
    **dict.fromkeys("\N{MINUS SIGN}\N{EN DASH}\N{HYPHEN}\N{NON-BREAKING HYPHEN}\N{FULLWIDTH HYPHEN-MINUS}", "-"),
    "\N{ARABIC DECIMAL SEPARATOR}": ".",
    "\N{ARABIC THOUSANDS SEPARATOR}": ",",
    "\N{ARABIC PERCENT SIGN}": "%",
    "\N{DEGREE CELSIUS}": "\N{DEGREE SIGN}C",
    "\N{DEGREE FAHRENHEIT}": "\N{DEGREE SIGN}F",
    "\N{GREEK SMALL LETTER MU}": "\N{MICRO SIGN}",
    # nothing to be seen of these; characters that turn the direction of writing are kept, and make no number
    **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff\u00ad\ufe0f\u20e3", ""),
    # full-width ASCII
    **{chr(code + 0xFEE0): chr(code) for code in range(0x21, 0x7F) if chr(code) != "-"},
}
_TABLE = str.maketrans(_FOLDED)
_SQUARED_UNITS = re.compile("[\u3371-\u33df]")  # one character for a unit, such as that of kg
_APOSTROPHES = str.maketrans(dict.fromkeys("\u2018\u2019\u02bc\u00b4`", "'") | dict.fromkeys("\u201c\u201d\u201e", '"'))
_HAN_PARTICLE = re.compile("(?<=[\u4e00-\u9fff]{2})\u7684\\Z")  # "of", behind an adjective
_INNER_APOSTROPHE = re.compile("(?<=[A-Za-z])[\u2018\u2019](?=[A-Za-z])")
# U.K., p.m. and Ph.D., also with blanks
_ABBREVIATION = re.compile(r"\b(?:[A-Z]\.){1,5}[A-Z]\b\.?|\b[ap]\.\s?m\b\.?|\bPh\.\s?D\b\.?")


def ascii_digits(text: str) -> str:
    """Decimal digits of any script as 0-9, typographic minus and full-width signs as plain ones.

    Superscripts and fractions are left alone: "5²" is not "52".
    """
    digits = (unicodedata.decimal(char, None) for char in text)
    plain = "".join(char if digit is None else str(digit) for char, digit in zip(text, digits, strict=True))
    return _SQUARED_UNITS.sub(lambda found: unicodedata.normalize("NFKC", found.group()), plain.translate(_TABLE))


def strip_wrapping(text: str) -> str:
    """Removes what may surround an answer: quotes, emphasis, one pair of brackets, a closing full stop."""
    previous = None
    while previous != text:
        previous = text
        text = text.strip()
        if len(text) > 2 and text[-1] in _QUOTES.get(text[0], ""):
            text = text[1:-1].strip()
        if text[-1:] in _TRAILING or (text[-1:] in _AFTER_LETTER and text[-2:-1].isalpha()):
            text = text[:-1]
        if bracketed := _BRACKETED.fullmatch(text):
            text = next(group for group in bracketed.groups() if group is not None)
    return text


def bare_text(text: str) -> str:
    """Text without light LaTeX and what may surround an answer, its digits as 0-9."""
    return strip_wrapping(to_plain(ascii_digits(text)))


def strip_lead(text: str) -> str:
    """Removes a beginning that only announces the answer ("The answer is", "Final answer:"), with outer emphasis."""
    bare = text.strip().strip("*_").strip()
    found = _LEAD.match(bare)
    return bare[found.end() :].strip().strip("*_").strip() if found else text.strip()


def normalise(text: str) -> str:
    """Text with case, digits' script, light LaTeX, outer punctuation, a leading article and spacing made uniform.

    Never empty for a text with any visible character. Case is kept in a number with a short unit: "5 mW" is not "5 MW".
    A text without words may be a formula, where case, an "a" and every sign mean something.
    """
    spaced = " ".join(to_plain(ascii_digits(text)).split())
    bare = strip_wrapping(spaced) or spaced or text.strip()
    bare = _HAN_PARTICLE.sub("", bare)
    bare = _ABBREVIATION.sub(lambda found: re.sub(r"[.\s]", "", found.group()), _THE.sub("", bare))
    if not _has_words(bare):  # a formula, where case and signs count: M/m is not m/M
        bare = _INNER_APOSTROPHE.sub("'", bare)
        return _AROUND_SIGNS.sub(r"\1", bare)
    bare = re.sub(r"\s*&\s*", " and ", bare.translate(_APOSTROPHES))
    if not _SHORT_UNIT.fullmatch(bare):
        bare = bare.casefold()
    return " ".join(_BETWEEN_WORDS.sub(" ", _ARTICLE.sub("", bare)).split())


def _has_words(text: str) -> bool:
    """True if there is a word of three letters, or nothing but short English ones and articles ("a TV", "10:30 AM")."""
    if _WORD.search(_COMMAND.sub(" ", text)):
        return True
    runs = set(re.findall(r"[^\W\d_]+", text.casefold()))
    return bool(runs & _SHORT_WORDS) and runs <= {"a", "an", *_SHORT_WORDS} and not _OPERATOR.search(text)


def words_of(text: str) -> tuple[str, ...]:
    """Words of a text in lower case, plural endings removed, so that "dogs" and "dog" are one."""
    return tuple(singular(word) for word in re.findall(r"[^\W\d_]+", text.casefold()))


def word_set(text: str) -> frozenset[str]:
    """Set of the words of a text, as `words_of` gives them."""
    return frozenset(words_of(text))


def singular(word: str) -> str:
    """A word without the "s" or "es" of an English plural."""
    if len(word) > 4 and word.endswith(("ches", "shes", "sses", "xes")):
        return word[:-2]
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word
