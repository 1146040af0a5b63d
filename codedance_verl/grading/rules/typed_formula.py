"""LaTeX of formulas as people type them ("2πr", "√3", "x³", "sqrt(2)/2", "x >= 3")."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

_HIGH = "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079\u207a\u207b\u207f"
_LOW = "\u2080\u2081\u2082\u2083\u2084\u2085\u2086\u2087\u2088\u2089"
_ON_THE_LINE = str.maketrans(_HIGH + _LOW, "0123456789+-n0123456789")
_NAMES = ["neq", "infty", "times", "pm", "leq", "geq", "cup", "cap", "in", "emptyset"]
# commands of single characters, those of Greek letters by their names
_COMMANDS = dict(zip("\u2260\u221e\u00d7\u00b1\u2264\u2265\u222a\u2229\u2208\u2205", _NAMES, strict=True)) | {
    chr(code): name.split()[-1].casefold()
    for code in range(0x3B1, 0x3CA)
    if (name := unicodedata.name(chr(code))).startswith("GREEK SMALL LETTER") and len(name.split()) == 4
}


def _fraction(found: re.Match[str]) -> str:
    r"""\frac{1}{2} for "½"; behind digits it is added: "2½" is two and a half."""
    top, bottom = unicodedata.normalize("NFKC", found.group(2)).split("\N{FRACTION SLASH}")
    fraction = rf"\frac{{{top}}}{{{bottom}}}"
    return f"({found.group(1)}+{fraction})" if found.group(1) else fraction


# In this order: "**" is a power before "*" is a product, and shorthands (\frac12, \sqrt2) follow what may write them.
_TYPED: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = (
    (re.compile(f"[{_HIGH}]+"), lambda found: f"^{{{found.group().translate(_ON_THE_LINE)}}}"),
    (re.compile(f"[{_LOW}]+"), lambda found: f"_{{{found.group().translate(_ON_THE_LINE)}}}"),
    (re.compile(r"(\d+)?\s*([\u00bc-\u00be\u2150-\u215e])"), _fraction),
    (re.compile(r"\\sqrt\s*\(([^()]*)\)"), r"\\sqrt{\1}"),
    (re.compile(r"\N{CUBE ROOT}\s*(\w+|\([^()]*\))"), r"\\sqrt[3]{\1}"),
    (re.compile(r"!="), r"\\neq "),
    (re.compile(r"\N{SQUARE ROOT}\s*\(([^()]*)\)|(?<!\\)\bsqrt\s*\(([^()]*)\)"), r"\\sqrt{\1\2}"),
    (re.compile(r"\N{SQUARE ROOT}\s*(\w+)"), r"\\sqrt{\1}"),
    (re.compile(r"(?<![A-Za-z\\])(pi|sin|cos|tan|log|ln|exp|infty)(?![A-Za-z])"), r"\\\1 "),
    (re.compile(r"(?<!\\)\b(?:infinity|inf)\b"), r"\\infty "),
    (re.compile(r"\*\*"), "^"),
    (re.compile(r"\^\s*\(([^()]*)\)"), r"^{\1}"),
    (re.compile(r"\*|\N{MIDDLE DOT}|\N{DOT OPERATOR}"), r"\\cdot "),
    (re.compile(r"<="), r"\\leq "),
    (re.compile(r">="), r"\\geq "),
    (re.compile(f"[{''.join(_COMMANDS)}]"), lambda found: f"\\{_COMMANDS[found.group()]} "),
    (re.compile(r"\N{DIVISION SIGN}"), "/"),
    (re.compile(r"\\[dt]frac"), r"\\frac"),
    (re.compile(r"\\frac\s*(\d)\s*(\d)(?!\d)"), r"\\frac{\1}{\2}"),
    (re.compile(r"\\sqrt\s*(\d)"), r"\\sqrt{\1}"),
    (re.compile(r"(?<!\\)\\[,;:! ]|\\(?:left|right|displaystyle|quad|qquad)(?![A-Za-z])"), " "),
    (re.compile(r"\\(?:text|mathrm)\s*\{\s*(or|and)\s*\}"), r" \1 "),
    (re.compile(r"\^\s*\{?\s*\\prime\s*\}?"), "'"),
    (re.compile(r"\^\s*\{?\s*\\circ\s*\}?|\\degree(?![A-Za-z])|\N{DEGREE SIGN}"), r"^{\\circ}"),
)


def to_latex(text: str) -> str:
    """Formula with commands for the characters and words that it was typed with; what is LaTeX stays as it is."""
    for pattern, replacement in _TYPED:
        text = pattern.sub(replacement, text)
    return text
