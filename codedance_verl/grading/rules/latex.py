r"""Light LaTeX, taken off a text: delimiters, `\boxed`, `\text`, spacing, signs that have a character.

Formulas stay formulas (`expression` compares them); what remains of "$12\,\text{cm}$" is "12 cm".
"""

from __future__ import annotations

import re

_DELIMITED = re.compile(r"\$\$(?P<a>[^$]+)\$\$|\$(?P<b>[^$]+)\$|\\\((?P<c>.+)\\\)|\\\[(?P<d>.+)\\\]", re.DOTALL)
_COMMAND_AROUND = re.compile(r"\\(?:boxed|fbox|text|textbf|textit|mathrm|mathbf|mbox)\s*\{")
_TEXT = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mbox|operatorname)\s*\{([^{}]*)\}")
# \frac12 takes single digits; a digit in front makes it a mixed number, "2\frac{1}{2}"
_PLAIN_FRACTION = re.compile(r"(\d?)\\[dt]?frac\s*(?:\{\s*(\d+)\s*\}\s*\{\s*(\d+)\s*\}|(\d)(\d))")
_POWER_OF_UNIT = re.compile(r"(?<=[A-Za-z])\^\{(-?\d)\}")
# "{,}" is a comma that only groups digits; single braces stay, as they may hold an argument.
_SIGNS = (
    (re.compile(r"\^\s*\{?\s*\\circ\s*\}?|\\degree(?![A-Za-z])"), "\N{DEGREE SIGN}"),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\\[,;:! ]|\\quad(?![A-Za-z])|~"), " "),
    (re.compile(r"\\([%$&#])"), r"\1"),
    (re.compile(r"\\approx(?![A-Za-z])"), "\N{ALMOST EQUAL TO}"),
    (re.compile(r"\\left(?=[(\[|.\\])|\\right(?=[)\]|.\\])"), ""),
    (re.compile(r"\\([{}])"), r"\1"),
)


def unwrap(text: str) -> str:
    r"""Removes what stands around the whole text: `$ $`, `\( \)`, `\[ \]`, `\boxed{ }`, `\text{ }`."""
    previous = None
    while previous != text:
        previous, text = text, text.strip()
        if found := _DELIMITED.fullmatch(text):
            inner = next(group for group in found.groups() if group is not None)
            text = text if "\\(" in inner or "\\[" in inner else inner
        if (opening := _COMMAND_AROUND.match(text)) and _closes_at_end(text, opening.end() - 1):
            text = text[opening.end() : -1]
    return text


def to_plain(text: str) -> str:
    r"""Unwraps, and writes the signs of light LaTeX as characters; "\frac{1}{2}" of two numbers becomes "1/2"."""
    text = unwrap(text)
    if "\\" not in text and "^" not in text and "{,}" not in text:
        return text
    text = _TEXT.sub(r"\1", text)
    for pattern, sign in _SIGNS:
        text = pattern.sub(sign, text)
    text = _PLAIN_FRACTION.sub(_fraction, text)
    return _POWER_OF_UNIT.sub(r"^\1", text)


def depth(text: str) -> int:
    """Depth of the deepest nesting of brackets of any kind."""
    now = deepest = 0
    for char in text:
        now += (char in "([{") - (char in ")]}")
        deepest = max(deepest, now)
    return deepest


def _fraction(found: re.Match[str]) -> str:
    before, top, bottom = found.group(1), found.group(2) or found.group(4), found.group(3) or found.group(5)
    return f"{before} {top}/{bottom}" if before else f"{top}/{bottom}"


def _closes_at_end(text: str, opening: int) -> bool:
    """True if the brace at `opening` is closed by the last character."""
    depth = 0
    for place in range(opening, len(text)):
        if text[place] in "{}" and text[place - 1] != "\\":
            depth += 1 if text[place] == "{" else -1
            if depth == 0:
                return place == len(text) - 1
    return False
