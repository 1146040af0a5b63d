"""Brings two spellings of one answer to the same text, without making different answers alike."""

from __future__ import annotations

import re
import unicodedata

_QUOTES = "\"'`*_«»“”\N{LEFT SINGLE QUOTATION MARK}\N{RIGHT SINGLE QUOTATION MARK}"
_TRAILING = ".,;:"
_AFTER_LETTER = "!?"  # behind a digit these mean something ("3!")
_ARTICLE = re.compile(r"^(?:an?|the)\s+(?=\S)")
_BETWEEN_WORDS = re.compile(r"(?<=[^\W\d_])[-,;:]+\s*(?=[^\W\d_])")
_BRACKETED = re.compile(r"\(([^()\[\]{},]+)\)|\[([^()\[\]{},]+)\]|\{([^()\[\]{},]+)\}")
_SHORT_UNIT = re.compile(r"[-+]?[\d.,]+\s*[^\W\d_]{1,3}")
_DASHES = str.maketrans(
    dict.fromkeys("\N{MINUS SIGN}\N{EN DASH}\N{HYPHEN}\N{NON-BREAKING HYPHEN}\N{FULLWIDTH HYPHEN-MINUS}", "-")
)


def ascii_digits(text: str) -> str:
    """Decimal digits of any script as 0-9, and the typographic minus as "-".

    Superscripts and fractions are left alone: "5²" is not "52".
    """
    digits = (unicodedata.decimal(char, None) for char in text)
    plain = "".join(char if digit is None else str(digit) for char, digit in zip(text, digits, strict=True))
    return plain.translate(_DASHES)


def strip_wrapping(text: str) -> str:
    """Remove what may surround an answer: quotes, emphasis, one pair of brackets, a closing full stop."""
    previous = None
    while previous != text:
        previous = text
        text = text.strip().strip(_QUOTES).strip()
        if text[-1:] in _TRAILING or (text[-1:] in _AFTER_LETTER and text[-2:-1].isalpha()):
            text = text[:-1]
        if bracketed := _BRACKETED.fullmatch(text):
            text = next(group for group in bracketed.groups() if group is not None)
    return text


def normalise(text: str) -> str:
    """Case, digits' script, outer punctuation, a leading article and spacing made uniform.

    Never empty for a text with any visible character. Case is kept in a number with a short unit: "5 mW" is not "5 MW".
    """
    spaced = " ".join(ascii_digits(text).split())
    bare = strip_wrapping(spaced) or spaced
    if not _SHORT_UNIT.fullmatch(bare):
        bare = bare.casefold()
    return " ".join(_BETWEEN_WORDS.sub(" ", _ARTICLE.sub("", bare)).split())
